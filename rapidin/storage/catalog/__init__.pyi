from . import (
    database as database,
    digests as digests,
    sample_changes as sample_changes,
    schema as schema,
    tables as tables,
)
from .commit_counter import (
    COMMITS_TEMPORARY_NAME as COMMITS_TEMPORARY_NAME,
)
from .database import (
    Database as Database,
)
from .filter_sql import (
    compile_filters as compile_filters,
)
from .sample_rows import (
    MetadataChange as MetadataChange,
    NewSample as NewSample,
    hits_of as hits_of,
    row_values as row_values,
    sample_of as sample_of,
    sample_values as sample_values,
    spans_of as spans_of,
    spans_text as spans_text,
    text_checksum as text_checksum,
    values_checksum as values_checksum,
)
from .schema import (
    DerivedPartRow as DerivedPartRow,
    DerivedRow as DerivedRow,
    MetadataFieldRow as MetadataFieldRow,
    SampleMetadataRow as SampleMetadataRow,
    SampleRow as SampleRow,
)
