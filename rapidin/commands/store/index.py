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
            help="ivf: sorts the vectors into lists of similar ones, and a search reads only the lists most like "
            "the query; pays where the data has clusters, and for very large stores. rabitq: compares one bit of "
            "each number first, then the best few hundred exactly; for stores of --bits 4 or 16."
        ),
    ] = "ivf",
    nlist: Annotated[
        int | None, typer.Option(min=1, help="Lists of ivf; unless given, what makes searches quickest.")
    ] = None,
    nprobe: Annotated[
        int | None, typer.Option(min=1, help="Lists a search of ivf reads; unless given, as --recall takes.")
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            help="Share of the true ten best that ivf is to find, measured with stored vectors as queries; 0.95 "
            "unless given. An index may find less, because its --nprobe is too small; then only searches that ask "
            "for it use it."
        ),
    ] = None,
    train_sample: Annotated[
        int | None,
        typer.Option(min=1, help="Vectors to make the lists from; unless given, what 1 GiB of memory holds."),
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Build the index again instead of adding what is new.")
    ] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Delete the index of --type instead of building it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build an index for approximate search, or add to it what was ingested since.

    Searches take the index by themselves (--index auto). Samples that it does not cover are compared exactly, so
    nothing is missed between an ingest and the next run of this command. The command also checks the index, and
    makes again what is missing or damaged.
    """
    from rapidin.commands.views.store_view import index_summary
    from rapidin.storage import Store

    if drop and (retrain or (nlist, nprobe, recall, train_sample) != (None, None, None, None)):
        raise SettingError("--drop deletes an index: leave out what is for building one, or leave out --drop")
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
