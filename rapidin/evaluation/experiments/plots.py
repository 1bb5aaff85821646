"""Plots of precision against k, with a line for each method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rapidin.errors import DataFileError
from rapidin.records import BackdoorReport
from rapidin.support import package

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of Okabe and Ito (2008), which colour-blind people can also tell apart."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_DASHES = ("-", "--", "-.", ":")


def plot_precision(report: BackdoorReport, file: Path) -> None:
    """Draw the precision of the k best samples by every method, with its 95 % intervals over queries.

    Args:
        report: report of the comparison.
        file: image file; its ending names the format, such as .png, .svg or .pdf.

    Raises:
        DependencyError: matplotlib is not installed.
        DataFileError: the file cannot be written.
    """
    package("matplotlib").use("Agg")
    pyplot = package("matplotlib.pyplot", "matplotlib")
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    try:
        for number, method in enumerate(report.methods):
            _draw(axes, number, method)
        base = report.relevant / report.samples
        axes.axhline(base, color="0.3", linewidth=1, linestyle=":", label=f"all samples: {base:.1%}")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(package("matplotlib.ticker", "matplotlib").StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("k: samples ranked first")
        axes.set_ylabel(f"precision: share of them with {report.label}")
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.25)
        axes.set_title(
            f"{report.queries:,} queries, {report.samples:,} samples; bands: 95 % intervals", fontsize=10
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise DataFileError(
            f"{file}: the plot cannot be written: {error}; give a name such as plot.png"
        ) from error
    finally:
        pyplot.close(figure)


def _draw(axes: Any, number: int, method: Any) -> None:
    ks = [point.k for point in method.curve]
    colour = _COLOURS[number % len(_COLOURS)]
    axes.plot(
        ks,
        [point.precision.mean for point in method.curve],
        color=colour,
        linestyle=_DASHES[number // len(_COLOURS) % len(_DASHES)],
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=4,
        markevery=(number % 4, 4),
        linewidth=1.8,
        label=method.name,
        zorder=3 - 0.1 * number,
    )
    banded = [point for point in method.curve if point.precision.low is not None]
    axes.fill_between(
        [point.k for point in banded],
        [point.precision.low for point in banded],
        [point.precision.high for point in banded],
        color=colour,
        alpha=0.15,
        linewidth=0,
    )
