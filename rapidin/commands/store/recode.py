"""``rapidin recode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rapidin.commands.options import Json, StorePath
from rapidin.commands.output import output, progress, when_interrupted


@when_interrupted("there is no copy, the store is as it was, and the same command starts again")
def recode(
    store: StorePath,
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Directory of the copy; new or empty.")],
    bits: Annotated[int, typer.Option(help="Bits of each number in the copy: 16, 4 or 1.")],
    as_json: Json = False,
) -> None:
    """Copy a store with other bits per number.

    Example: rapidin recode my-store smaller-store --bits 1

    Fewer bits make the copy smaller and its scores a little noisier. The store itself stays as it is. The copy has
    its curvature. Indexes are not copied: build them with 'rapidin index'. Coding in 1 bit takes longest, for
    example 28 seconds for 4,900 samples of 65,536 numbers.
    """
    from rapidin.commands.views.store_view import size
    from rapidin.storage import recode as recode_store

    with progress("recoding") as show:
        report = recode_store(store, new, bits, on_progress=show)
    done = (
        f"{report.samples:,} samples in {new}: vectors of {size(report.bytes_before)} → "
        f"{size(report.bytes_after)} ({report.seconds:,.1f} s)"
    )
    output(report, "\n".join((done, *report.notes)), as_json)
