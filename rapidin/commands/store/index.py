"""``rapidin index``."""

from __future__ import annotations

from typing import Annotated

import typer

from rapidin.commands.options import Json, StorePath
from rapidin.commands.output import output, progress, when_interrupted
from rapidin.errors import SettingError
from rapidin.settings import IndexKind


@when_interrupted(
    "nothing is lost, and the same command goes on; searches are exact where the index is not finished"
)
def index(
    store: StorePath,
    type: Annotated[
        IndexKind,
        typer.Option(
            help="Kind of the index. ivf sorts the vectors into lists of similar ones, and a search reads only "
            "the lists that are most like the query; it suits data with clusters, and very large stores. rabitq "
            "compares one bit of each number first, and then the best few hundred samples exactly; it is for "
            "stores of --bits 4 or 16."
        ),
    ] = "ivf",
    nlist: Annotated[
        int | None,
        typer.Option(min=1, help="Number of ivf's lists. Default: the number with which searches are fastest."),
    ] = None,
    nprobe: Annotated[
        int | None,
        typer.Option(min=1, help="Number of ivf's lists that a search reads. Default: enough to reach --recall."),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            help="Share of the true ten best samples that ivf should find, measured with stored vectors as "
            "queries. Default: 0.95. If an index finds less, because --nprobe is too small, only searches that "
            "name it use it."
        ),
    ] = None,
    train_sample: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of vectors that the lists are made from. Default: as many as 1 GiB of memory holds.",
        ),
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Build the index again instead of adding new samples to it.")
    ] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Delete the index of --type instead of building it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build or extend an index for approximate search.

    Example: rapidin index my-store --type rabitq

    An existing index is checked, repaired, and extended by the samples that were ingested since. Searches use the
    index by themselves (--index auto). They compare samples that it does not cover exactly, so they find new
    samples even before the index is extended.
    """
    from rapidin.commands.views.store_view import index_summary
    from rapidin.storage import Store

    if drop and (retrain or (nlist, nprobe, recall, train_sample) != (None, None, None, None)):
        raise SettingError(
            "--drop deletes an index: leave out --retrain, --nlist, --nprobe, --recall and --train-sample, or "
            "leave out --drop"
        )
    with Store.open(store) as opened:
        if drop:
            opened.drop_index(type)
            output({"dropped": type}, f"index {type} is deleted", as_json)
            return
        with progress("indexing") as show:
            report = opened.build_index(
                type,
                nlist=nlist,
                nprobe=nprobe,
                train_sample=train_sample,
                recall=recall,
                retrain=retrain,
                on_progress=show,
            )
    output(report, index_summary(report), as_json)
