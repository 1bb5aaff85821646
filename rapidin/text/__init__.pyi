from .encoding import (
    EncodedSample as EncodedSample,
    Encoder as Encoder,
)
from .rows import (
    TextSample as TextSample,
    Turn as Turn,
    hash_of as hash_of,
    recognise as recognise,
)
from .span_targets import (
    SpanTargets as SpanTargets,
    spans_in_response as spans_in_response,
    tokens_in_spans as tokens_in_spans,
)
from .templates import (
    ALPACA as ALPACA,
    load_template as load_template,
    named_fields as named_fields,
    render as render,
)
from .tokenizers import (
    Tokenizer as Tokenizer,
)
from .words import (
    Word as Word,
    group_into_words as group_into_words,
    words_of as words_of,
)
