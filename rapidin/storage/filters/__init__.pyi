from .expressions import (
    COMPARISONS as COMPARISONS,
)
from .expressions import (
    Condition as Condition,
)
from .expressions import (
    check_boolean as check_boolean,
)
from .expressions import (
    check_bounded as check_bounded,
)
from .expressions import (
    check_field as check_field,
)
from .expressions import (
    parse as parse,
)
from .indexed_values import (
    LARGEST_INTEGER as LARGEST_INTEGER,
)
from .indexed_values import (
    LONGEST_TEXT as LONGEST_TEXT,
)
from .indexed_values import (
    SMALLEST_INTEGER as SMALLEST_INTEGER,
)
from .indexed_values import (
    IndexedValue as IndexedValue,
)
from .indexed_values import (
    Kind as Kind,
)
from .indexed_values import (
    indexed_metadata as indexed_metadata,
)
from .indexed_values import (
    indexed_value as indexed_value,
)
from .metadata import (
    metadata_hash as metadata_hash,
)
from .metadata import (
    metadata_text as metadata_text,
)
