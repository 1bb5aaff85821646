from .expressions import (
    COMPARISONS as COMPARISONS,
    Condition as Condition,
    check_boolean as check_boolean,
    check_bounded as check_bounded,
    check_field as check_field,
    parse as parse,
)
from .indexed_values import (
    LARGEST_INTEGER as LARGEST_INTEGER,
    LONGEST_TEXT as LONGEST_TEXT,
    SMALLEST_INTEGER as SMALLEST_INTEGER,
    IndexedValue as IndexedValue,
    Kind as Kind,
    indexed_metadata as indexed_metadata,
    indexed_value as indexed_value,
)
from .metadata import (
    metadata_hash as metadata_hash,
    metadata_text as metadata_text,
)
