from . import (
    segment_writing as segment_writing,
)
from .checksum_cache import (
    VERIFIED_FILES as VERIFIED_FILES,
    VerifiedFiles as VerifiedFiles,
)
from .codecs import (
    CODECS as CODECS,
    SLICE as SLICE,
    Codec as Codec,
    PreparedQueries as PreparedQueries,
    codec_named as codec_named,
    codec_of_bits as codec_of_bits,
    fitting_scales as fitting_scales,
    load_faiss as load_faiss,
)
from .decoded_samples import (
    DecodedSamples as DecodedSamples,
    decoded_vectors as decoded_vectors,
)
from .opened_segments import (
    OpenedSegments as OpenedSegments,
)
from .searched_rows import (
    Rows as Rows,
)
from .segment_writing import (
    SUFFIX as SUFFIX,
    SegmentRecord as SegmentRecord,
)
from .segments import (
    Segment as Segment,
    SegmentSource as SegmentSource,
    open_segment as open_segment,
    place_of as place_of,
)
