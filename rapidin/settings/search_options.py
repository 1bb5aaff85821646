"""The options of a search, each declared once: at its field of `SearchOptions`.

A field has its type, its default, and a `Flag` with its help, its smallest number, and its name on the command
line. From these fields (`SEARCH_OPTIONS`) come the options of ``rapidin search``, the request of the HTTP service,
the arguments of the MCP tool and the keywords of the retrievers. So a new option is a field here, its name in
`SearchKeywords`, through which type checkers know the keywords of `rapidin.Searcher.search`, and the code that
acts on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Annotated, Any, Literal, TypedDict, get_args, get_origin, get_type_hints

from rapidin.errors import SettingError
from rapidin.settings.choices import MAX_NEW_TOKENS, IndexChoice, MeasureChoice, Objective
from rapidin.settings.flags import Flag

Part = str | tuple[int, int]
"""Part of a generation: a text, or the offsets of its first character and of the character behind its last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """The options of a search; the help of each field's flag says what the field means.

    The options are checked here, when they are made, and nowhere else.

    Raises:
        SettingError: on creation, an option cannot be used, or two of them contradict each other.
    """

    k: Annotated[int, Flag("-k", "Samples wanted at each end.", least=1)] = 10
    opponents: Annotated[bool, Flag("--opponents", "Find the most negative influences too.")] = False
    where: Annotated[
        Sequence[str],
        Flag(
            "--where",
            "Take only samples that meet this filter, for example 'source=gsm8k', 'tokens<100' or "
            "'poisoned=true'. Operators: = != < <= > >=, ~ (matches a regular expression) and !~. Fields: those "
            "of the data, and id, prompt, response, text, file, row, tokens, targets, truncated, segment.",
            "EXPR",
        ),
    ] = ()
    rerank: Annotated[
        int,
        Flag(
            "--rerank",
            "Compute the exact influence of the N best at each end, order them by it, and tell which of their "
            "words it comes from; each takes about as long as three training steps. 0: only the stored estimates, "
            "which is quickest.",
            "N",
            least=0,
        ),
    ] = 0
    by_token: Annotated[
        bool, Flag("--by-token", "Find what every token of the generation goes back to by itself, too.")
    ] = False
    spans: Annotated[
        Sequence[Part],
        Flag(
            "--span",
            "Ask only about this part of the generation, for example a wrong word; every place where it stands "
            "counts.",
            "TEXT",
        ),
    ] = ()
    matrices: Annotated[
        bool,
        Flag(
            "--matrices",
            "Compute the influence of each token of the best samples on each token of the generation, too. This "
            "needs rerank, and takes one pass for each sample and token.",
        ),
    ] = False
    exact_curvature: Annotated[
        bool,
        Flag(
            "--exact-curvature",
            "Compute the part of exact influences that the curvature takes away from the gradients of all probes, "
            "instead of restoring it from their sketches. This is more exact, above all with a small "
            "--projection-dim, and takes a forward and backward pass for each probe. It needs rerank.",
        ),
    ] = False
    index: Annotated[
        IndexChoice,
        Flag(
            "--index",
            "exact: compare with every vector. ivf, rabitq: that index, which 'rapidin index' builds. auto: an "
            "index if the store has one that saves time and finds enough, else exact. With filters every search "
            "is exact.",
        ),
    ] = "auto"
    measure: Annotated[
        MeasureChoice | None,
        Flag(
            "--measure",
            "influence: what retraining without a sample would change, estimated with the curvature, which "
            "'rapidin ingest' and 'rapidin curvature' compute. cosine: how alike the gradients of the sample and "
            "the answer are. Unless given, influence if the store has a curvature, else cosine.",
        ),
    ] = None
    objective: Annotated[
        Objective | None,
        Flag(
            "--objective",
            "The question. loss: which samples, left out, would change this answer? log-odds: which samples "
            "taught this behaviour? Unless given, loss, or the only objective that the store was made with; "
            "another one than the store's needs --measure influence.",
        ),
    ] = None
    nprobe: Annotated[
        int | None,
        Flag(
            "--nprobe",
            "Lists that index ivf reads, instead of its own number; more find more and take longer.",
            least=1,
        ),
    ] = None
    max_new_tokens: Annotated[
        int, Flag("--max-new-tokens", "Longest answer that the model may write.", least=1)
    ] = MAX_NEW_TOKENS

    def __post_init__(self) -> None:
        for option in SEARCH_OPTIONS.values():
            option.check(getattr(self, option.name))
        if 0 < self.rerank < self.k:
            raise SettingError(f"--rerank {self.rerank} is less than the {self.k} samples wanted: give more, or 0")
        if isinstance(self.spans, str):
            raise SettingError(f"spans is the text {self.spans!r}: give a list of texts, such as [{self.spans!r}]")
        for part in self.spans:
            _check_part(part)
        if self.matrices and not self.rerank:
            raise SettingError("matrices of tokens go with exact influences: give --rerank")
        if self.exact_curvature and not self.rerank:
            raise SettingError("--exact-curvature goes with exact influences: give --rerank")
        if self.exact_curvature and self.measure == "cosine":
            raise SettingError(
                "--exact-curvature and --measure cosine contradict each other: leave out one of them"
            )
        # A single expression is a sequence of letters, too; copies keep the options from changing with a list.
        where = (self.where,) if isinstance(self.where, str) else tuple(self.where)
        object.__setattr__(self, "where", where)
        object.__setattr__(self, "spans", tuple(self.spans))

    @property
    def candidates(self) -> int:
        """Number of samples to find at each end before they are ordered exactly."""
        return max(self.k, self.rerank)


class SearchKeywords(TypedDict, total=False):
    """The fields of `SearchOptions` as keywords of a function; a test compares the two."""

    k: int
    opponents: bool
    where: Sequence[str]
    rerank: int
    by_token: bool
    spans: Sequence[Part]
    matrices: bool
    exact_curvature: bool
    index: IndexChoice
    measure: MeasureChoice | None
    objective: Objective | None
    nprobe: int | None
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class SearchOption:
    """One option of a search.

    Attributes:
        name: name of the field of `SearchOptions`.
        type: type of the field.
        default: value unless another is given.
        flag: option of the command line, with the help that all interfaces show.
    """

    name: str
    type: Any
    default: Any
    flag: Flag

    @property
    def choices(self) -> tuple[str, ...]:
        """Values of an option that is one of a few words; empty for other options."""
        kinds = (self.type, *get_args(self.type))
        return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())

    def check(self, value: Any) -> None:
        """Check that a value is one of the choices, or a number that is large enough.

        Raises:
            SettingError: it is not.
        """
        if self.choices and value is not None and value not in self.choices:
            raise SettingError(f"{self.flag.name} {value!r} is unknown: choose one of {', '.join(self.choices)}")
        if self.flag.least is None or (value is None and type(None) in get_args(self.type)):
            return
        if not isinstance(value, Integral) or value < self.flag.least:
            raise SettingError(
                f"{self.flag.name} {value!r} cannot be used: give a number of at least {self.flag.least}"
            )


def options_with(options: SearchOptions | None, changes: SearchKeywords) -> SearchOptions:
    """Make the options of one search, and thereby check them.

    Args:
        options: options to start from; None: the defaults.
        changes: values that take the place of those of `options`.

    Raises:
        SettingError: an option cannot be used.
    """
    if options is None:
        return SearchOptions(**changes)
    return replace(options, **changes) if changes else options


def options_as_keywords(options: SearchOptions | None) -> dict[str, Any]:
    """Return the options by name; None: none, so that the defaults hold."""
    return {} if options is None else {name: getattr(options, name) for name in SEARCH_OPTIONS}


def _check_part(part: Any) -> None:
    pair = isinstance(part, tuple) and len(part) == 2 and all(isinstance(place, int) for place in part)
    if not (isinstance(part, str) or pair):
        raise SettingError(f"{part!r} is no part of a generation: give a text, or a tuple of two offsets")
    if isinstance(part, str) and not part.strip():
        raise SettingError("a part of the generation is blank: give a text that occurs in it")


def _options() -> Iterator[SearchOption]:
    hints = get_type_hints(SearchOptions, include_extras=True)
    for field in fields(SearchOptions):
        kind, flag = get_args(hints[field.name])
        yield SearchOption(field.name, kind, field.default, flag)


SEARCH_OPTIONS: dict[str, SearchOption] = {option.name: option for option in _options()}
"""The options by name, in the order of the fields."""
