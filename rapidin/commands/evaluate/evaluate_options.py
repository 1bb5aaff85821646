"""What the commands of ``rapidin evaluate`` have in common: options, the model, what is looked at beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rapidin.commands.heavy_imports import importing
from rapidin.errors import SettingError

if TYPE_CHECKING:
    from rapidin.evaluation import Label, Options, Questions, Setting
    from rapidin.model import QueryModel
    from rapidin.storage import Store

Queries = Annotated[
    Path,
    typer.Option(metavar="FILE", help="Generations to ask about: rows of the shapes that ingest takes."),
]
LabelOption = Annotated[
    str,
    typer.Option(
        metavar="FIELD=VALUE",
        help="What marks the training samples that should be found, such as poisoned=true. Queries that carry "
        "another value of the field are left out.",
    ),
]
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Method to compare with; repeat, or 'all'. Names: rapidin+rerank, random, bm25, embedding, tracin, "
        "tracin-ln, influence-cg, influence-lissa. Those with whole gradients take long.",
    ),
]
Answers = Annotated[
    Literal["file", "model"],
    typer.Option(
        help="Whose generations are asked about: the file's, where a row has one (file), or the model's own, "
        "written now, greedily (model). What the model never said, no sample made it say: where the file's "
        "responses are not its own, take model."
    ),
]
LimitQueries = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Ask the first N queries of the label only.")
]
Rerank = Annotated[
    int, typer.Option(min=1, metavar="N", help="Samples at each end that rapidin+rerank orders exactly.")
]
EmbeddingModel = Annotated[
    Path | None,
    typer.Option(
        metavar="DIRECTORY",
        help="sentence-transformers model for 'embedding'; without it the model's own mean hidden states.",
    ),
]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIRECTORY=RATE",
        help="Checkpoint of the training with its learning rate there, for tracin and tracin-ln; repeat. Without "
        "any, the store's model alone.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--setting",
        metavar="METHOD.NAME=NUMBER",
        help="Of influence functions; repeat. influence-cg: damping, samples, tolerance, iterations; "
        "influence-lissa: damping, scale, depth, repeats, batch.",
    ),
]
Together = Annotated[
    bool,
    typer.Option(
        "--together",
        help="Ask all queries at once: what one by itself takes stays unknown, and methods that pass over all "
        "samples each time take half as long.",
    ),
]
Work = Annotated[
    Path | None,
    typer.Option(
        metavar="DIRECTORY",
        help="Where scores are kept, so that nothing is computed twice; STORE/evaluation unless given. It may be "
        "deleted at any time.",
    ),
]
Model = Annotated[str | None, typer.Option(help="Where the model is now, if it moved.")]
Adapter = Annotated[str | None, typer.Option(help="Where the adapter is now, if it moved.")]
Device = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda, cuda:0, or cuda:0,1 to spread the model's layers over several GPUs."),
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest answer that the model may write.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn at random.")]


@contextmanager
def opened_model(
    store: Store,
    model: str | None,
    adapter: str | None,
    device: str,
    tokens_per_batch: int | None,
    trust_remote_code: bool,
) -> Iterator[QueryModel]:
    """The model of a store, until the end of the ``with``.

    Raises:
        ModelError: it cannot be loaded, or is another than the store's.
    """
    with importing():
        from rapidin.model import QueryModel
    with QueryModel(
        store,
        model=model,
        adapter=adapter,
        device=device,
        tokens_per_batch=tokens_per_batch,
        trust_remote_code=trust_remote_code,
    ) as loaded:
        yield loaded


def setting_of(
    store: Store,
    model: QueryModel,
    label: Label,
    questions: Questions,
    where: list[str] | None,
    device: str,
    options: Options,
    max_new_tokens: int,
    work: Path | None,
    alone: bool = True,
) -> Setting:
    """What an experiment is about; scores are kept in the store unless `work` names another directory."""
    from rapidin.evaluation import DIRECTORY_NAME, Setting

    return Setting(
        store=store,
        model=model,
        label=label,
        questions=questions,
        where=where or (),
        device=device,
        options=options,
        max_new_tokens=max_new_tokens,
        work=store.path / DIRECTORY_NAME if work is None else work,
        alone=alone,
    )


def check_packages(names: list[str], sentences: bool, plot: bool) -> None:
    """Tell what is not installed before anything is computed.

    Raises:
        DependencyError: a package is missing.
    """
    from rapidin.support import package

    package("sklearn.metrics", "scikit-learn")
    package("scipy.stats", "scipy")
    package("psutil")
    if "bm25" in names:
        package("bm25s")
        package("Stemmer", "PyStemmer")
    if plot:
        package("matplotlib")
    if sentences:
        package("sentence_transformers", "sentence-transformers", "pip install sentence-transformers")


def directory_of(path: Path | None) -> str | None:
    """The place of ``--embedding-model``.

    Raises:
        SettingError: it is no directory.
    """
    if path is None:
        return None
    if not path.is_dir():
        raise SettingError(f"--embedding-model {path} is no directory: give that of a sentence-transformers model")
    return str(path.absolute())


def checkpoints_of(given: list[str] | None) -> tuple[tuple[str, float], ...]:
    """Directories and learning rates of ``--checkpoint``.

    Raises:
        SettingError: one cannot be read, is no directory, or has a rate that no training has.
    """
    found = []
    for one in given or ():
        place, separator, rate = one.rpartition("=")
        try:
            found.append((str(Path(place).absolute()), float(rate)))
        except ValueError:
            separator = ""
        if not separator or not place:
            raise SettingError(f"--checkpoint {one!r} cannot be read: write DIRECTORY=LEARNING_RATE")
        if not Path(place).is_dir():
            raise SettingError(f"--checkpoint {one!r}: {place} is no directory")
        if not 0 < found[-1][1] < math.inf:
            raise SettingError(f"--checkpoint {one!r}: {rate} is no learning rate; give a number above 0")
    return tuple(found)
