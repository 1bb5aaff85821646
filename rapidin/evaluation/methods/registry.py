"""The methods that can be compared, by name; `METHODS` has an entry for each.

Everything that a method needs is imported when its scorer is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from rapidin.errors import SettingError
from rapidin.settings import Objective
from rapidin.support import package

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from rapidin.attribution import GaussNewton, Lissa
    from rapidin.evaluation.methods.ek_fac import EkFac
    from rapidin.evaluation.methods.scorer import Scorer
    from rapidin.model import StoreModel
    from rapidin.storage import Store

Settings = TypeVar("Settings", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """Settings of the methods.

    Attributes:
        seed: seed of ``random`` and of draws in influence functions.
        rerank: number of samples at each end whose exact influence ``rapidin+rerank`` computes.
        embedding_model: directory of a sentence-transformers model for ``embedding``; None for the store's model.
        checkpoints: directories of checkpoints of the training with the learning rate at each, for ``tracin`` and
            ``tracin-ln``; empty for the store's model alone.
        objective: objective of the questions that ``rapidin`` is asked; None: the store's first.
        more: further settings by method, such as ``{"influence-lissa": {"scale": 300}}``; they must be plain JSON.
    """

    seed: int = 0
    rerank: int = 100
    embedding_model: str | None = None
    checkpoints: tuple[tuple[str, float], ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    objective: Objective | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """Objects from which a scorer is made.

    Attributes:
        store: an open store.
        model: model of the store.
        where: filters that the training samples meet.
        device: device as the user named it.
        options: settings of the methods.
    """

    store: Store
    model: StoreModel
    where: Sequence[str]
    device: str
    options: MethodOptions


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        make: function that makes its scorer.
        summary: a few words about the method.
        settings: function that returns, as plain JSON, the options that decide its scores besides store, queries
            and samples; saved scores are used again only if these are equal.
        knows_tokens: whether it can be asked about some tokens of a generation alone.
        cached: whether its work on the training samples is done once, at ingest.
        named_only: whether it runs only if it is named, because it needs an extra and does not fit every model;
            ``all`` does not stand for it.
    """

    make: Callable[[Context], Scorer]
    summary: str
    settings: Callable[[MethodOptions], Mapping[str, Any]] = lambda _: {}
    knows_tokens: bool = False
    cached: bool = False
    named_only: bool = False


def _rapidin(context: Context) -> Scorer:
    from rapidin.evaluation.methods.stored_scores import RapidinScorer

    return RapidinScorer(context.store, context.model, context.where, objective=context.options.objective)


def _cosine(context: Context) -> Scorer:
    from rapidin.evaluation.methods.stored_scores import RapidinScorer

    return RapidinScorer(context.store, context.model, context.where, "cosine", context.options.objective)


def _reranked(context: Context) -> Scorer:
    from rapidin.evaluation.methods.stored_scores import RapidinScorer, RerankedScorer

    estimates = RapidinScorer(context.store, context.model, context.where, objective=context.options.objective)
    return RerankedScorer(estimates, context.model, context.options.rerank)


def _random(context: Context) -> Scorer:
    from rapidin.evaluation.methods.baselines import RandomScorer

    return RandomScorer(context.options.seed)


def _bm25(_: Context) -> Scorer:
    from rapidin.evaluation.methods.baselines import Bm25Scorer

    return Bm25Scorer()


def _embedding(context: Context) -> Scorer:
    from rapidin.evaluation.methods.baselines import EmbeddingScorer, SentenceScorer

    if context.options.embedding_model is not None:
        return SentenceScorer(context.options.embedding_model, context.model.device.type)
    return EmbeddingScorer(context.model)


def _tracin(context: Context, normalise_layers: bool) -> Scorer:
    from rapidin.evaluation.methods.tracin import Checkpoint, TracIn

    checkpoints = [Checkpoint(*one) for one in context.options.checkpoints]
    return TracIn(context.model, normalise_layers=normalise_layers, checkpoints=checkpoints, device=context.device)


def _checkpoints(options: MethodOptions) -> Mapping[str, Any]:
    return {"checkpoints": [[_state(place), rate] for place, rate in options.checkpoints]}


def _state(directory: str) -> list[list[object]]:
    """Names, sizes and times of a directory's files, which change when it is written again."""
    files = sorted(path for path in Path(directory).rglob("*") if path.is_file())
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _asked(options: MethodOptions) -> Mapping[str, Any]:
    return {"objective": options.objective}


def _embedded_by(options: MethodOptions) -> Mapping[str, Any]:
    return {"model": None if options.embedding_model is None else _state(options.embedding_model)}


def method_settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read settings of methods, such as ``influence-lissa.scale=300``, for `MethodOptions.more`.

    Raises:
        SettingError: a text cannot be read, or names an unknown method or setting, or a value that cannot be used.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        method, dot, name = place.strip().partition(".")
        if not (equals and dot) or method not in _WITH_SETTINGS:
            raise SettingError(
                f"--setting {text!r} cannot be used: write METHOD.NAME=NUMBER, such as influence-lissa.scale=300"
            )
        found.setdefault(method, {})[name] = value.strip()
        _WITH_SETTINGS[method](MethodOptions(more=found))
    return found


def _gauss_newton(options: MethodOptions) -> GaussNewton:
    from rapidin.attribution import GaussNewton

    return _with_settings(GaussNewton, options, "influence-cg")


def _lissa(options: MethodOptions) -> Lissa:
    from rapidin.attribution import Lissa

    return _with_settings(Lissa, options, "influence-lissa")


def _ek_fac(options: MethodOptions) -> EkFac:
    from rapidin.evaluation.methods.ek_fac import EkFac

    return _with_settings(EkFac, options, "ek-fac")


_WITH_SETTINGS: Mapping[str, Callable[[MethodOptions], GaussNewton | Lissa | EkFac]] = {
    "influence-cg": _gauss_newton,
    "influence-lissa": _lissa,
    "ek-fac": _ek_fac,
}
"""Methods that a user can give settings, and functions that make the dataclass of their settings."""


def _with_settings(kind: type[Settings], options: MethodOptions, name: str) -> Settings:
    """Make a dataclass of the user's settings of a method; its fields are plain JSON."""
    values = {"seed": options.seed, **options.more.get(name, {})}
    known = [one.name for one in fields(kind)]
    if unknown := sorted(set(values) - set(known)):
        raise SettingError(f"{name} has no setting {unknown[0]!r}: give one of {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise SettingError(f"{name}.{problem['loc'][0]}={problem['input']}: {problem['msg']}") from error


def _influence(name: str, summary: str, inverse: Callable[[MethodOptions], GaussNewton | Lissa]) -> Method:
    def make(context: Context) -> Scorer:
        from rapidin.evaluation.methods.influence_functions import InfluenceFunction

        return InfluenceFunction(name, context.model, inverse(context.options))

    return Method(make, summary, lambda options: asdict(inverse(options)), knows_tokens=True)


def _kronecker(context: Context) -> Scorer:
    _kronfluence()
    from rapidin.evaluation.methods.ek_fac import EkFacScorer

    return EkFacScorer(context.model, _ek_fac(context.options))


METHODS: dict[str, Method] = {
    "rapidin": Method(_rapidin, "the store's own scores", _asked, knows_tokens=True, cached=True),
    "rapidin-cosine": Method(
        _cosine, "the store's own scores without curvature", _asked, knows_tokens=True, cached=True
    ),
    "rapidin+rerank": Method(
        _reranked,
        "the store's scores, both ends ordered by exact influence",
        lambda options: {"rerank": options.rerank, **_asked(options)},
        knows_tokens=True,
        cached=True,
    ),
    "random": Method(_random, "chance", lambda options: {"seed": options.seed}),
    "bm25": Method(_bm25, "words in common"),
    "embedding": Method(_embedding, "likeness of hidden states", _embedded_by),
    "tracin": Method(
        lambda context: _tracin(context, False), "exact whole gradients", _checkpoints, knows_tokens=True
    ),
    "tracin-ln": Method(
        lambda context: _tracin(context, True),
        "exact gradients, each tensor's normalised",
        _checkpoints,
        knows_tokens=True,
    ),
    "influence-cg": _influence("influence-cg", "influence function by conjugate gradients", _gauss_newton),
    "influence-lissa": _influence("influence-lissa", "influence function by LiSSA", _lissa),
    "ek-fac": Method(
        _kronecker,
        "influence function of the linear layers by EK-FAC, with kronfluence",
        lambda options: asdict(_ek_fac(options)),
        knows_tokens=True,
        named_only=True,
    ),
}


def require_packages(names: Sequence[str], options: MethodOptions) -> None:
    """Import the optional packages that the methods and measures need, before anything is computed.

    Args:
        names: names of the methods.
        options: settings of the methods.

    Raises:
        DependencyError: a package is missing; the error says how to install it.
    """
    package("sklearn.metrics", "scikit-learn")
    package("scipy.stats", "scipy")
    package("psutil")
    if "bm25" in names:
        package("bm25s")
        package("Stemmer", "PyStemmer")
    if "embedding" in names and options.embedding_model is not None:
        package("sentence_transformers", "sentence-transformers", "pip install sentence-transformers")
    if "ek-fac" in names:
        _kronfluence()


def _kronfluence() -> None:
    package("kronfluence", advice="pip install 'rapidin[ekfac]'")


ALWAYS = "bm25"
"""Method that is always compared, because a method that traces causes should be better than words in common."""

QUICK_METHODS = ("random", ALWAYS, "embedding")
"""Methods that rapidin is compared with unless the user names others; they need no gradients."""


def methods_to_judge(names: Sequence[str]) -> list[str]:
    """List the named methods, each once.

    Raises:
        SettingError: a name is unknown.
    """
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise SettingError(f"--method {unknown[0]!r} is unknown: give one of {', '.join(METHODS)}")
    return list(dict.fromkeys(names))


def methods_to_run(names: Sequence[str], *, knows_tokens: bool = False) -> list[str]:
    """List the methods to run, each once: ``rapidin``, the named ones and ``bm25``; ``all`` stands for all but
    ``ek-fac``.

    Args:
        names: names that the user gave.
        knows_tokens: whether only methods that know tokens can be used; ``bm25`` does not.

    Raises:
        SettingError: a name is unknown, or a method does not know tokens.
    """
    usable = [name for name, method in METHODS.items() if method.knows_tokens or not knows_tokens]
    found = ["rapidin"]
    for name in names:
        if name == "all":
            found += [one for one in usable if not METHODS[one].named_only]
        elif name not in METHODS:
            raise SettingError(f"--baseline {name!r} is unknown: give one of {', '.join(usable)}, or all")
        elif name not in usable:
            raise SettingError(
                f"--baseline {name!r} cannot be asked about single words: give one of {', '.join(usable)}, or all"
            )
        else:
            found.append(name)
    if ALWAYS in usable:
        found.append(ALWAYS)
    return list(dict.fromkeys(found))
