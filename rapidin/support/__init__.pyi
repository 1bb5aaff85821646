from .context_lengths import (
    context_length as context_length,
)
from .environment import (
    VARIABLES as VARIABLES,
)
from .interruptions import (
    interruptions_wait as interruptions_wait,
    termination_interrupts as termination_interrupts,
)
from .memory import (
    WorkingMemory as WorkingMemory,
    free_bytes as free_bytes,
    is_out_of_memory as is_out_of_memory,
    release_cached_memory as release_cached_memory,
    unless_memory_runs_out as unless_memory_runs_out,
)
from .optional_packages import (
    package as package,
)
from .processes import (
    FreshInterpreter as FreshInterpreter,
    exit_in_words as exit_in_words,
)
from .texts import (
    both_ends as both_ends,
    error_line as error_line,
    named_line as named_line,
    one_line as one_line,
    printable as printable,
    printable_json as printable_json,
    shortened as shortened,
)
from .threads import (
    openmp_threads as openmp_threads,
    processors as processors,
    torch_threads as torch_threads,
)
from .torch_modes import (
    own_torch_modes as own_torch_modes,
)
from .whole_files import (
    open_regular as open_regular,
    sync as sync,
    write_content as write_content,
    write_whole as write_whole,
)
from .wrapped_models import (
    inner_model as inner_model,
)
