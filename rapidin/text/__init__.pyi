from .chosen import (
    ChosenTokens as ChosenTokens,
)
from .chosen import (
    spans_in_response as spans_in_response,
)
from .chosen import (
    tokens_in_spans as tokens_in_spans,
)
from .encoding import (
    EncodedSample as EncodedSample,
)
from .encoding import (
    Encoder as Encoder,
)
from .rows import (
    TextSample as TextSample,
)
from .rows import (
    Turn as Turn,
)
from .rows import (
    recognise as recognise,
)
from .templates import (
    ALPACA as ALPACA,
)
from .templates import (
    load_template as load_template,
)
from .templates import (
    named_fields as named_fields,
)
from .words import (
    words_of as words_of,
)
