"""Options of the commands that retrain, and what they become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rapidin.evaluation import Training

Command = Annotated[
    str | None,
    typer.Option(
        help="Command that trains one model, for example 'python train.py --data {data} --output {output} "
        "--seed {seed}'. It reads JSON Lines and saves a checkpoint of transformers or PEFT. Default: a "
        "built-in loop, which trains the store's architecture on one core and suits small models only."
    ),
]
Data = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="File that the store was ingested from; repeat it for several. --command then gets these rows as "
        "they are, instead of rows of id, prompt, completion and metadata.",
    ),
]
Initial = Annotated[
    Path | None,
    typer.Option(
        metavar="DIRECTORY",
        help="Checkpoint that the built-in training begins with. Default: random weights.",
    ),
]
Epochs = Annotated[int, typer.Option(min=1, help="Number of epochs of the built-in training on the responses.")]
EpochsAll = Annotated[
    int, typer.Option(min=0, help="Number of epochs on all tokens, before those on the responses.")
]
LearningRate = Annotated[float, typer.Option(min=0, help="Maximum learning rate of the built-in training.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Number of samples in a batch of the built-in training.")]
Repeats = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Number of models for each set of samples, which differ in their seed; their losses are averaged.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Number of models that are trained at a time. Default: one for each core, or one with --command.",
    ),
]
RetrainingWork = Annotated[
    Path | None,
    typer.Option(
        "--work",
        metavar="DIRECTORY",
        help="Directory that keeps scores, losses, checkpoints and logs, so that nothing is done twice. Stores of "
        "the same samples may share it. Default: STORE/evaluation.",
    ),
]
RetrainingDevice = Annotated[
    str,
    typer.Option(
        "--device", help="Device that computes scores, and losses after a --command: auto, cpu, cuda or cuda:0."
    ),
]
RetrainingSeed = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of random subsets, first weights and order of rows.")
]


def training_of(
    command: str | None,
    initial: Path | None,
    epochs: int,
    epochs_all: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> Training:
    """Make the settings of a training from the options."""
    from rapidin.evaluation import Training
    from rapidin.model import Schedule

    schedule = Schedule(
        epochs_all=epochs_all, epochs_response=epochs, batch=batch_size, learning_rate=learning_rate
    )
    return Training(command, None if initial is None else str(initial.absolute()), schedule, seed)
