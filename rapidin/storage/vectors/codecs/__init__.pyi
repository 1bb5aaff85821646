from .codec import (
    Codec as Codec,
    DirectionCodec as DirectionCodec,
    PreparedQueries as PreparedQueries,
)
from .codec_registry import (
    CODECS as CODECS,
    codec_named as codec_named,
    codec_of_bits as codec_of_bits,
)
from .decoded_slices import (
    SLICE as SLICE,
)
from .faiss_library import (
    load_faiss as load_faiss,
)
from .four_bit import (
    UniformGrid as UniformGrid,
)
from .half_precision import (
    HalfPrecision as HalfPrecision,
    fitting_scales as fitting_scales,
)
from .one_bit import (
    OneBit as OneBit,
)
