from . import (
    database as database,
)
from . import (
    moves as moves,
)
from . import (
    schema as schema,
)
from . import (
    tables as tables,
)
from .database import (
    Database as Database,
)
from .filter_sql import (
    compile_filters as compile_filters,
)
from .sample_rows import (
    NewSample as NewSample,
)
from .sample_rows import (
    ScoredSample as ScoredSample,
)
from .sample_rows import (
    new_sample_of as new_sample_of,
)
from .sample_rows import (
    row_values as row_values,
)
from .sample_rows import (
    sample_of as sample_of,
)
from .sample_rows import (
    sample_values as sample_values,
)
from .sample_rows import (
    scored as scored,
)
from .sample_rows import (
    spans_of as spans_of,
)
from .sample_rows import (
    spans_text as spans_text,
)
from .sample_rows import (
    text_checksum as text_checksum,
)
from .sample_rows import (
    values_checksum as values_checksum,
)
from .schema import (
    IndexPartRow as IndexPartRow,
)
from .schema import (
    IndexRow as IndexRow,
)
from .schema import (
    MetadataFieldRow as MetadataFieldRow,
)
from .schema import (
    SampleMetadataRow as SampleMetadataRow,
)
from .schema import (
    SampleRow as SampleRow,
)
