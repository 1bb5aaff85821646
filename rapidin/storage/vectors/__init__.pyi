from . import (
    segment_writing as segment_writing,
)
from .codecs import (
    CODECS as CODECS,
    Codec as Codec,
    codec_settings as codec_settings,
    fitting_scales as fitting_scales,
    load_faiss as load_faiss,
)
from .decoding import (
    Block as Block,
    decoded as decoded,
)
from .rows import (
    Rows as Rows,
)
from .segment_cache import (
    OpenedSegments as OpenedSegments,
)
from .segment_reading import (
    Segment as Segment,
    open_segment as open_segment,
    place_of as place_of,
    verify_bytes as verify_bytes,
)
from .segment_writing import (
    SUFFIX as SUFFIX,
    SegmentRecord as SegmentRecord,
)
