from . import (
    segment_writing as segment_writing,
)
from .codecs import (
    CODECS as CODECS,
)
from .codecs import (
    Codec as Codec,
)
from .codecs import (
    codec_settings as codec_settings,
)
from .codecs import (
    fitting_scales as fitting_scales,
)
from .codecs import (
    load_faiss as load_faiss,
)
from .decoding import (
    Block as Block,
)
from .decoding import (
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
)
from .segment_reading import (
    open_segment as open_segment,
)
from .segment_reading import (
    place_of as place_of,
)
from .segment_reading import (
    verify_bytes as verify_bytes,
)
from .segment_writing import (
    SUFFIX as SUFFIX,
)
from .segment_writing import (
    SegmentRecord as SegmentRecord,
)
