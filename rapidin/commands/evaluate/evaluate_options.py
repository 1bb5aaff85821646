"""Options that the commands of ``rapidin evaluate`` share, how their texts are read, and how a command ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from rapidin.commands.output import output, progress
from rapidin.errors import SettingError
from rapidin.ingest import place_and_rate
from rapidin.settings import Answers as AnswerSource, Objective

Report = TypeVar("Report")

Queries = Annotated[
    Path,
    typer.Option(
        metavar="FILE", help="Data file of the queries (prompts and generations), with rows as for ingest."
    ),
]
LabelOption = Annotated[
    str,
    typer.Option(
        metavar="FIELD=VALUE",
        help="Field and value of the training samples that should be found, such as poisoned=true. Queries that "
        "have another value of the field are left out.",
    ),
]
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Method to compare with, or 'all'; repeat it for several; backdoor always adds bm25. Methods: "
        "rapidin-cosine, rapidin+rerank, random, bm25, "
        "embedding, tracin, tracin-ln, influence-cg, influence-lissa, ek-fac. The last five use whole gradients "
        "and take long. 'all' does not stand for ek-fac, which needs the extra ekfac.",
    ),
]
Attacked = Annotated[
    str | None,
    typer.Option(
        metavar="FIELD|REGEX",
        help="Count only queries whose answers show the behaviour. FIELD: a field of every query, which must be "
        "true. REGEX, if there is no such field: a regular expression that the answer must contain a match of. "
        "Default: answers that do not show the behaviour count too, although no labelled sample is behind them.",
    ),
]
Answers = Annotated[
    AnswerSource,
    typer.Option(
        help="Source of the generations. file: a row's response, if it has one, else the model's. model: always "
        "the model's own, written now, greedily. Take model if the file's responses are not what the model says, "
        "because no sample made the model say them."
    ),
]
LimitQueries = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Ask only the first N queries that do not have another value of the label."
    ),
]
Asked = Annotated[
    Objective | None,
    typer.Option(
        "--objective",
        help="The question that the store's own methods are asked. loss: which samples, left out, would change "
        "the answer? log-odds: which samples taught the behaviour? Default: log-odds for backdoor, if the store "
        "can be asked so, else loss.",
    ),
]
Rerank = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Number of samples at each end that rapidin+rerank orders exactly."),
]
EmbeddingModel = Annotated[
    Path | None,
    typer.Option(
        metavar="DIRECTORY",
        help="Directory of a sentence-transformers model for 'embedding'. Default: the mean hidden states of the "
        "store's model.",
    ),
]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIRECTORY=RATE",
        help="Checkpoint of the training, and the learning rate at it, for tracin and tracin-ln; repeat it for "
        "several. Default: the store's model alone.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--setting",
        metavar="METHOD.NAME=NUMBER",
        help="Setting of a method, such as influence-lissa.scale=300; repeat it for several. "
        "influence-cg has damping, samples, tolerance, iterations; influence-lissa has damping, scale, depth, "
        "repeats, batch; ek-fac has damping, longest_side.",
    ),
]
Together = Annotated[
    bool,
    typer.Option(
        "--together",
        help="Ask all queries at once. Methods that pass over all samples for each group of queries then take "
        "half as long, but the time of a single query stays unknown.",
    ),
]
Work = Annotated[
    Path | None,
    typer.Option(
        metavar="DIRECTORY",
        help="Directory that keeps scores, so that nothing is computed twice. It may be deleted at any time. "
        "Default: STORE/evaluation.",
    ),
]
Model = Annotated[str | None, typer.Option(help="Directory of the model, if it has moved.")]
Adapter = Annotated[str | None, typer.Option(help="Directory of the adapter, if it has moved.")]
Device = Annotated[
    str,
    typer.Option(
        help="Device that computes: auto, cpu, cuda, cuda:0, or cuda:0,1 to spread the model's layers over "
        "several GPUs."
    ),
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Maximum number of tokens that the model may answer.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn at random.")]


def directory_of(path: Path | None) -> str | None:
    """The directory that ``--embedding-model`` names, as an absolute path.

    Raises:
        SettingError: it is not a directory.
    """
    if path is None:
        return None
    if not path.is_dir():
        raise SettingError(
            f"--embedding-model {path} is not a directory: give the directory of a sentence-transformers model"
        )
    return str(path.absolute())


def checkpoints_of(given: list[str] | None) -> tuple[tuple[str, float], ...]:
    """Read the directories and learning rates of ``--checkpoint``.

    Raises:
        SettingError: a text cannot be read, names no directory, or has a rate that is not above 0.
    """
    found = []
    for one in given or ():
        place, rate = place_and_rate(one)
        if rate is None:
            raise SettingError(f"--checkpoint {one!r} cannot be read: write DIRECTORY=LEARNING_RATE")
        if not Path(place).is_dir():
            raise SettingError(
                f"--checkpoint {one!r}: {place} is not a directory; give the directory of a checkpoint"
            )
        found.append((str(Path(place).absolute()), rate))
    return tuple(found)


def evaluated(
    step: str, evaluate: Callable[[Callable[..., None]], Report], view: Callable[[Report], Any], as_json: bool
) -> Report:
    """Evaluate with a bar on stderr, and print the report on stdout.

    Args:
        step: name of the first step, which the bar shows.
        evaluate: function that evaluates; it gets a function that takes the progress.
        view: function that makes what a person sees of the report.
        as_json: whether JSON is printed instead.

    Raises:
        RapidinError: the evaluation failed.
    """
    with progress(step) as show:
        report = evaluate(show)
    output(report, view(report), as_json)
    return report
