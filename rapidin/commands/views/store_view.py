"""Stores on a terminal: progress and messages on stderr, results on stdout, drawn by rich.

This module knows records, not stores or models. No bar is drawn if stderr is not a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from rapidin import support
from rapidin.records import DerivedInfo, DerivedReport, IngestListener, IngestReport, Preflight, Sample, StoreInfo
from rapidin.settings import CURVATURE_DAMPING, STORE_SETTINGS
from rapidin.support import printable

_LONGEST_TEXT = 600


class ProgressListener(IngestListener):
    """Draws an ingest: a preflight line, then one bar with samples or probes, tokens per second and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("reading", total=None, rate="")
        self._samples = 0
        self._tokens = 0
        self.stored = 0

    def __enter__(self) -> ProgressListener:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def reading(self, rows: int) -> None:
        """See `IngestListener.reading`."""
        self._progress.update(self._task, completed=rows)

    def planned(self, preflight: Preflight) -> None:
        """See `IngestListener.planned`."""
        cut = f", {preflight.truncated:,} of them truncated" if preflight.truncated else ""
        probes = f"; {preflight.probes:,} probes of the curvature to compute" if preflight.probes else ""
        room = f"; room needed: about {size(preflight.bytes)} of {size(preflight.bytes_free)} that are free"
        self._console.print(
            f"{preflight.samples:,} samples to ingest ({preflight.tokens:,} tokens{cut}), "
            f"{preflight.skipped:,} in the store already"
            f"{probes}{room if preflight.samples or preflight.probes else ''}",
            highlight=False,
            soft_wrap=True,
        )
        self._samples = preflight.samples

    def loading_model(self, name: str) -> None:
        """See `IngestListener.loading_model`."""
        self._console.print(f"loading {escape(name)}", highlight=False, soft_wrap=True)
        self._progress.reset(self._task, total=None, description="loading", rate="")

    def computing(self, processes: int) -> None:
        """See `IngestListener.computing`."""
        where = f" in {processes} processes" if processes > 1 else ""
        self._progress.reset(self._task, total=self._samples, description=f"computing gradients{where}", rate="")

    def advanced(self, samples: int, tokens: int) -> None:
        """See `IngestListener.advanced`."""
        self._tokens += tokens
        elapsed = self._progress.tasks[0].elapsed or 0.0
        rate = f"{self._tokens / elapsed:,.0f} tokens/s" if elapsed > 0 else ""
        self._progress.update(self._task, advance=samples, rate=rate)

    def committed(self, samples: int) -> None:
        """See `IngestListener.committed`."""
        self.stored += samples

    def curvature(self, done: int, total: int) -> None:
        """See `IngestListener.curvature`."""
        if not done:
            self._progress.reset(self._task, total=total, description="computing the curvature", rate="")
        self._progress.update(self._task, completed=done, total=total)


def ingest_summary(report: IngestReport, dry_run: bool) -> RenderableType:
    """Draw one line of figures, and the rows that were left out."""
    verb = "would be added" if dry_run else "added"
    parts = [f"{report.added:,} {verb}"]
    for count, what in (
        (report.replaced, "replaced"),
        (report.updated, "updated"),
        (report.skipped, "skipped"),
        (report.truncated, "truncated"),
        (report.failed, "failed"),
    ):
        if count:
            parts.append(f"{count:,} {what}")
    line = f"{', '.join(parts)}; {report.store} holds {report.samples_total:,} samples"
    if report.tokens_per_second:
        line += f" ({report.seconds:,.1f} s, {report.tokens_per_second:,.0f} tokens/s)"
    lines = [line, *_curvature_lines(report, dry_run)]
    failures = [Text(f"left out: {_place(failure)}: {failure.reason}") for failure in report.failures[:20]]
    if report.failed > 20:
        failures.append(Text(f"… and {report.failed - 20:,} more; --json lists them all"))
    return Group(*map(Text, lines), *failures)


def _curvature_lines(report: IngestReport, dry_run: bool) -> list[str]:
    """Describe the curvature after an ingest; nothing if there is nothing to say."""
    curvature = report.curvature
    if curvature is None:
        return []
    if dry_run and curvature.computed:
        return [f"curvature: {curvature.computed:,} probes would be computed"]
    whole = f" of {curvature.probes:,}" if curvature.probes != curvature.computed else ""
    computed = f"curvature: {curvature.computed:,}{whole} probes computed"
    advice = f"curvature: {curvature.advice}"
    return [computed] * bool(curvature.computed) + [advice] * (curvature.advice is not None)


def samples_table(samples: Sequence[Sample]) -> RenderableType:
    """Draw samples of a store, one on each line."""
    table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
    table.add_column(
        "id", overflow="fold", min_width=min(24, max((len(sample.id) for sample in samples), default=2))
    )
    for heading, ratio in (("prompt", 3), ("response", 3), ("metadata", 2)):
        table.add_column(heading, overflow="ellipsis", no_wrap=True, ratio=ratio)
    for sample in samples:
        table.add_row(
            Text(sample.id),
            Text(prompt_ending(sample.prompt)),
            Text(one_line(sample.response)),
            Text(metadata_line(sample)),
        )
    return table


def sample_view(sample: Sample) -> RenderableType:
    """Draw one sample with its whole text."""
    facts = Text(
        f"{sample.file}, row {sample.row} · {sample.tokens} tokens, {sample.targets} targets"
        f"{', truncated' if sample.truncated else ''}\n{metadata_line(sample)}"
    )
    return Group(
        Panel(Text(printable(sample.prompt)), title="prompt", title_align="left"),
        Panel(
            Text(printable(sample.response)),
            title=f"response · {escape(printable(sample.id))}",
            title_align="left",
        ),
        facts,
    )


def info_table(info: StoreInfo) -> RenderableType:
    """Draw a table of what a store holds."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    live = sum(segment.live for segment in info.segments)
    rows = sum(segment.rows for segment in info.segments)
    facts: dict[str, Any] = {
        "store": info.path,
        "samples": f"{info.samples:,}" + (f" ({info.deleted:,} deleted)" if info.deleted else ""),
        **{key.replace("_", " "): _setting(getattr(info, key)) for key in STORE_SETTINGS},
        "checkpoints": _checkpoints(info),
        "traced": f"{info.traced_parameters:,} parameters in {info.traced_tensors} tensors",
        "vectors": f"{bits(info.bits)} a number, {size(info.bytes_vectors)} in {len(info.segments)} segments, "
        f"{live:,} of {rows:,} rows live" + ("; 'rapidin compact' frees the others" if rows > 2 * live else ""),
        "metadata": f"{size(info.bytes_metadata)}; fields: {', '.join(info.metadata_fields) or 'none'}",
        **(
            {"unnamed": f"{size(info.bytes_unnamed)} in files no longer used wait for readers to end"}
            if info.bytes_unnamed
            else {}
        ),
        "searched": "\n".join(_index_line(index) for index in info.indexes),
        **({"derived": "\n".join(_derived_line(derived) for derived in info.derived)} if info.derived else {}),
        "created": f"{info.created}, format {info.format_version}",
    }
    for name, value in facts.items():
        table.add_row(name, Text(str(value)))
    return table


def _setting(value: Any) -> str:
    """Write a setting's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return "not given" if value is None else str(value)


def _checkpoints(info: StoreInfo) -> str:
    """Write one line for each checkpoint: its place and its weight in a score."""
    if not info.checkpoints:
        return "none"
    known = f"learning rates {', '.join(f'{rate:.3g}' for rate in info.learning_rates)}"
    weights = zip(info.checkpoints, info.shares, strict=True)
    lines = [f"{place}, {share:.1%} of the weight" for place, share in weights]
    return "\n".join([*lines, known if info.learning_rates else "learning rates not known, so equal weights"])


def index_summary(report: DerivedReport) -> str:
    """Describe what building an index did."""
    done = "built" if report.trained else "extended"
    line = f"index {report.name} {done}: {report.added:,} samples added, {report.covered:,} covered, "
    line += f"{size(report.bytes)} ({report.seconds:,.1f} s)"
    if report.repaired:
        line += f"\n{report.repaired:,} of its files or rows were missing or damaged, and were written again"
    if measured := _measured(report.parameters):
        line += f"\n{measured}"
    return line + (f"\n{report.advice}" if report.advice else "")


def curvature_summary(report: DerivedReport) -> str:
    """Write what computing the curvature did."""
    told = report.parameters
    done = "computed" if report.trained else "up to date"
    line = f"curvature {done}: {told['probes']:,} probes of {told['samples']:,} samples, "
    line += f"{_damping(told)}, {size(report.bytes)} ({report.seconds:,.1f} s)"
    if told["unusable"]:
        line += f"\n{told['unusable']:,} probes could not be computed and were left out"
    if report.repaired:
        line += f"\n{report.repaired:,} of its files or rows were missing or damaged, and were written again"
    return line + (f"\n{report.advice}" if report.advice else "")


def _damping(told: Mapping[str, Any]) -> str:
    """Describe the damping of a curvature."""
    if told["damping"] is not None:
        return f"damping {told['damping']:g}"
    return "damping " + ", ".join(f"{value:g} for {name}" for name, value in CURVATURE_DAMPING.items())


def _index_line(index: DerivedInfo) -> str:
    if index.name == "exact":
        return "exactly"
    if not index.covered:  # figures that were measured before say nothing about an empty index
        parts = [f"through {index.name}: no samples yet"]
    else:
        parts = [f"through {index.name}, {size(index.bytes)}, {index.covered:,} samples"]
        if index.uncovered:
            parts.append(f"{index.uncovered:,} more exactly")
        if measured := _measured(index.parameters):
            parts.append(measured)
    return "; ".join([*parts, *([index.advice] if index.advice else [])])


def _derived_line(derived: DerivedInfo) -> str:
    """Describe derived data that is not an index."""
    samples = derived.covered + derived.uncovered
    told = derived.parameters
    if derived.name == "curvature" and told:
        line = f"curvature, {told['probes']:,} probes of {told['samples']:,} samples, {_damping(told)}, "
        line += size(derived.bytes)
        return f"{line}; {derived.advice}" if derived.advice else line
    line = f"{derived.name}, {size(derived.bytes)}, {derived.covered:,} of {samples:,} samples"
    return f"{line}; {derived.advice}" if derived.advice else line


def _measured(parameters: Mapping[str, Any]) -> str:
    """Write the figures that were measured when an index was trained; empty if nothing was measured."""
    if "nlist" not in parameters:
        return ""
    text = f"{parameters['nprobe']:,} of {parameters['nlist']:,} lists are read"
    if parameters.get("recall") is not None:
        text += f", recall {parameters['recall']:.3f}, {parameters['scanned']:.1%} of the samples compared"
    return text


def size(count: int) -> str:
    """Write a number of bytes for people, in powers of 1,000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.2f} TB"


def bits(count: int) -> str:
    """Write a number of bits in words."""
    return f"{count} bit" if count == 1 else f"{count} bits"


def shortened(text: str, length: int = _LONGEST_TEXT) -> str:
    """Keep only beginning and end of a text that would fill the screen."""
    return printable(support.both_ends(text, length))


def prompt_ending(prompt: str) -> str:
    """Take the part of a prompt that differs from others, without the template's beginning."""
    body = prompt.partition("### Instruction:\n")[2] or prompt
    return shortened(one_line(body.replace("### Response:", "")), 200)


def one_line(text: str) -> str:
    """Write a text on one line, with a single blank for every run of white space."""
    return printable(support.one_line(text))


def metadata_line(sample: Sample) -> str:
    """Write fields as they can be written in a filter: truth values and lists as JSON."""
    plain = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in sample.metadata.items()
    }
    return printable(" ".join(f"{name}={value}" for name, value in plain.items()))


def _place(failure: Any) -> str:
    name = f" (id {failure.id!r})" if failure.id is not None else ""
    return f"{failure.file}, row {failure.row}{name}"
