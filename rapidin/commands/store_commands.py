"""The commands that look after a store: they need no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.parts import (
    Json,
    StorePath,
    Where,
    confirmed,
    output,
    progress,
    stderr,
    stdout,
    when_interrupted,
)
from rapidin.errors import SettingError
from rapidin.settings import ExportFormat, IndexKind

commands = typer.Typer()


@commands.command()
def info(store: StorePath, as_json: Json = False) -> None:
    """Show what a store holds and how it was made."""
    from rapidin.commands.views.store_view import info_table
    from rapidin.storage import Store

    with Store.open(store) as opened:
        record = opened.info()
    output(record, info_table(record), as_json)


@commands.command("list")
def list_samples(
    store: StorePath,
    where: Where = None,
    limit: Annotated[int, typer.Option(min=0, help="Samples at most; 0 for all.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Samples to leave out first.")] = 0,
    as_json: Json = False,
) -> None:
    """List the samples of a store; with --json one object a line."""
    from rapidin.commands.views.store_view import samples_table
    from rapidin.storage import Store

    with Store.open(store) as opened:
        samples = opened.list(where or [], limit=limit or None, offset=offset)
        total = opened.count(where or [])
    if not samples:
        reason = "no sample meets the filter" if where else "the store holds no samples"
        beyond = f"there are only {total:,} samples, so none behind --offset {offset:,}"
        typer.echo(beyond if total and offset else reason, err=True)
        return
    if as_json:
        for sample in samples:
            output(sample, None, as_json, one_line=True)
        return
    stdout().print(samples_table(samples))
    if offset + len(samples) < total:
        stderr().print(f"{len(samples):,} of {total:,} samples; --limit and --offset show others", highlight=False)


@commands.command()
def show(
    store: StorePath,
    id: Annotated[str, typer.Argument(metavar="ID", help="Of the sample.")],
    as_json: Json = False,
) -> None:
    """Show one sample, whole."""
    from rapidin.commands.views.store_view import sample_view
    from rapidin.storage import Store

    with Store.open(store) as opened:
        sample = opened.get(id)
    output(sample, sample_view(sample), as_json)


@commands.command()
def delete(
    store: StorePath,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Of the samples.")] = None,
    where: Where = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete samples by id, all that meet a filter, or, given both, those of the ids that meet it.

    Searches no longer find them. Their vectors stay on the disk until 'rapidin compact'.
    """
    from rapidin.storage import Store

    with Store.open(store) as opened:
        if where and not yes:
            meeting = f"that meet {' and '.join(where)}"
            which = f"those of the {len(set(ids)):,} given" if ids else f"the {opened.count(where):,} samples"
            if not confirmed(f"Delete {which} {meeting}?"):
                typer.echo("nothing was deleted", err=True)
                raise typer.Exit(1)
        deleted = opened.delete(ids or [], where or [])
    output({"deleted": deleted}, f"{deleted:,} deleted", as_json)


@commands.command()
@when_interrupted("not all was checked, and the same command starts again")
def verify(store: StorePath, as_json: Json = False) -> None:
    """Read every file of a store and check it; exit with 1 where something is wrong."""
    from rapidin.storage import Store

    with Store.open(store) as opened:
        report = opened.verify()
    summary = f"{report.samples:,} samples, all well" if report.ok else "\n".join(report.problems)
    output(report, summary, as_json)
    if not report.ok:
        raise typer.Exit(1)


@commands.command()
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
            "unless given. An index that finds less, for it was given too small an --nprobe, is used by searches "
            "that ask for it only."
        ),
    ] = None,
    train_sample: Annotated[
        int | None,
        typer.Option(min=1, help="Vectors to make the lists from; unless given, what 1 GiB of memory holds."),
    ] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Build anew instead of adding what is new.")] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Delete the index of --type instead of building it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build an index for approximate search, or add to it what was ingested since.

    Searches take the index by themselves (--index auto). Samples that it does not cover are compared exactly, so
    nothing is missed between an ingest and the next run of this command. The index is checked, too, and what of it
    is missing or damaged is made anew.
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


@commands.command()
@when_interrupted("nothing is lost, and the same command goes on")
def compact(
    store: StorePath,
    fraction: Annotated[
        float,
        typer.Option(
            help="Rewrite only files of which more than this share is deleted, 0 to 1. Small files are merged "
            "whatever it is."
        ),
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Give back the space of deleted samples and merge small files; searches go on meanwhile.

    An index for approximate search does not cover the samples whose files are written anew, so they are compared
    exactly until 'rapidin index' extends it; the output says which indexes that concerns.
    """
    from rapidin.commands.views.store_view import size
    from rapidin.storage import Store

    with Store.open(store) as opened, progress("compacting") as show:
        report = opened.compact(fraction=fraction, on_progress=show)
    lines = [
        f"{report.segments_before:,} → {report.segments_after:,} files, {size(report.bytes_before)} → "
        f"{size(report.bytes_after)}; {report.removed:,} deleted samples are gone ({report.seconds:,.1f} s)"
    ]
    lines += [
        f"index {kind} no longer covers {count:,} samples: extend it with 'rapidin index {store} --type {kind}'"
        for kind, count in report.uncovered.items()
    ]
    output(report, "\n".join(lines), as_json)


@commands.command()
@when_interrupted("nothing was written, and the same command starts again")
def export(
    store: StorePath,
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="To write to; new or empty.")],
    where: Where = None,
    format: Annotated[
        ExportFormat, typer.Option(help="Of the vectors: files of up to 1 GiB, or one vectors.npy.")
    ] = "safetensors",
    as_json: Json = False,
) -> None:
    """Write vectors (float32), samples (Parquet) and settings (JSON) for other tools, or for 'import'."""
    from rapidin.commands.views.store_view import size
    from rapidin.storage import Store, export_vectors

    with Store.open(store) as opened, progress("exporting") as show:
        report = export_vectors(opened, directory, where or [], format=format, on_progress=show)
    output(report, f"{report.samples:,} samples, {size(report.bytes)} in {report.path}", as_json)


@commands.command("import")
@when_interrupted("what was added stays, and the same command goes on")
def import_samples(
    store: StorePath,
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="What 'rapidin export' wrote.")],
    bits: Annotated[
        int | None,
        typer.Option(
            help="Of each number on disk, where the store is new: 16, 4 or 1; unless given, the export's. A store "
            "that is there already keeps its own."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add exported samples, or vectors computed elsewhere in the same form, to a store.

    The store is created where there is none; one that is there must have been made with the same model and
    projection. Samples that it has already are left alone, and those whose text changed are replaced.
    """
    from rapidin.storage import import_vectors

    with progress("importing") as show:
        report = import_vectors(store, directory, bits=bits, on_progress=show)
    output(
        report,
        f"{report.added:,} added, {report.replaced:,} replaced, {report.skipped:,} there already; "
        f"{store} holds {report.samples_total:,} samples",
        as_json,
    )


@commands.command()
@when_interrupted("there is no copy, the store is as it was, and the same command starts again")
def recode(
    store: StorePath,
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Directory of the copy; new or empty.")],
    bits: Annotated[int, typer.Option(help="Of each number in the copy: 16, 4 or 1.")],
    as_json: Json = False,
) -> None:
    """Copy a store, with other bits per number; fewer make it smaller, and its scores a little noisier.

    The store itself stays as it is. Indexes are not copied: build them with 'rapidin index'. Coding in 1 bit takes
    longest: 28 seconds for 4,900 samples of 65,536 numbers, as measured.
    """
    from rapidin.commands.views.store_view import size
    from rapidin.storage import recode as recode_store

    with progress("recoding") as show:
        report = recode_store(store, new, bits, on_progress=show)
    output(
        report,
        f"{report.samples:,} samples in {new}: vectors of {size(report.bytes_before)} → "
        f"{size(report.bytes_after)} ({report.seconds:,.1f} s)",
        as_json,
    )
