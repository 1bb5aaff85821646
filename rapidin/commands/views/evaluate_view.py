"""Evaluations on a terminal: tables as in the paper. This module knows records, not stores or models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rapidin.commands.views.store_view import bits, size
from rapidin.records import (
    BackdoorReport,
    EndsQuality,
    FidelityReport,
    Interval,
    LdsReport,
    MethodCost,
    MethodQuality,
    QldReport,
    TraceReport,
)
from rapidin.support import printable


def backdoor_view(report: BackdoorReport) -> RenderableType:
    """Draw the measures of Table 4 and the figures of Table 2."""
    parts: list[RenderableType] = [_asked(report)]
    measures: dict[str, Callable[[EndsQuality], Interval]] = {
        "auPRC of the k best and the k worst": lambda at: at.auprc,
        "auROC of the k best and the k worst": lambda at: at.auroc,
        "precision of the k best": lambda at: at.precision,
    }
    for title, value in measures.items():
        columns = [f"k = {at.k:,}" for at in report.methods[0].at]
        rows = [(method.name, [value(at) for at in method.at]) for method in report.methods]
        parts += [Text(), _table(title, columns, rows)]
    rows = [
        (method.name, [method.average_precision, method.reciprocal_rank, method.spearman])
        for method in report.methods
    ]
    whole = ["average precision", "mean reciprocal rank", "Spearman with rapidin"]
    parts += [Text(), _table("all samples", whole, rows)]
    legend = (
        "auROC: share of pairs of a labelled and another sample that are in the right order; 0 if neither end has "
        "a labelled sample, 0.5 if both ends have nothing else; in grey: 95 % intervals over queries"
    )
    parts += [Text(legend, style="dim"), Text()]
    parts += [_costs(report), Text(), Text(report.verdict), *(Text(note) for note in report.notes)]
    return Group(*parts)


def trace_view(report: TraceReport) -> RenderableType:
    """Draw Table 5."""
    columns = [f"top {at.k:,}" for at in report.methods[0].at] + ["average precision"]
    rows: list[tuple[str, Sequence[Interval]]] = []
    for method in report.methods:
        whole = [at.whole for at in method.at] + [method.average_precision_whole]
        span = [at.span for at in method.at] + [method.average_precision_span]
        rows += [(f"{method.name}, whole", whole), (f"{method.name}, span", span)]
    note = "whole: asked about the whole generation; span: about its wrong words alone; in grey: 95 % intervals"
    return Group(_asked(report), Text(), _table("precision", columns, rows), Text(note, style="dim"))


def fidelity_view(report: FidelityReport) -> RenderableType:
    """Draw a table that compares stored scores with exact ones."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    facts = {
        "compared": f"{report.queries:,} stored samples as queries with {report.samples:,} others "
        f"({report.seconds:,.1f} s)",
        "RapidGrads": f"K = {report.dimension:,}, {bits(report.bits)} a number",
        "correlation": f"Pearson {report.pearson}, Spearman {report.spearman}, within a query",
        "slope": f"{report.slope:.3f} (1: unbiased)",
        "exact scores": f"standard deviation {report.signal:.4g} within a query",
        "noise": f"standard deviation {report.noise:.4g}; variance × K {report.noise_times_dimension:.3g}; "
        f"{report.coding:.1%} of it from keeping {bits(report.bits)}",
        "the k best": ", ".join(f"{one.overlap.mean:.0%} of {one.k}" for one in report.overlaps) + " are the same",
        "at other K": "; ".join(
            f"{one.dimension:,}: correlation about {one.pearson:.3f}, {size(one.bytes)} a sample"
            for one in report.outlook
        ),
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, Text(value))
    return Group(table, Text(), Text(report.verdict))


def lds_view(report: LdsReport) -> RenderableType:
    """Draw a line about the retraining, and a table of methods, the best first."""
    table = Table(box=box.SIMPLE)
    table.add_column("method")
    table.add_column("LDS [95 % interval]", justify="right")
    table.add_column("worst query", justify="right")
    table.add_column("best query", justify="right")
    table.add_column("s", justify="right")
    for method in sorted(report.methods, key=lambda one: -one.lds.mean):
        worst, best = min(method.by_query), max(method.by_query)
        table.add_row(method.name, str(method.lds), f"{worst:.2f}", f"{best:.2f}", f"{method.seconds:.1f}")
    each = "each" if report.repeats == 1 else f"{report.repeats} of each"
    about = Text(
        f"{report.subsets * report.repeats} models, {each} of {_share(report.fraction)} of {report.samples:,} "
        f"samples; {len(report.queries)} queries, loss {report.loss_mean:.3f}, "
        f"between subsets ± {report.loss_spread:.3f}"
    )
    note = Text("Rank correlation of added-up scores with what retraining does; 0 is chance.", style="dim")
    if report.noise_ceiling is None:
        ceiling = "Noise ceiling: unknown; --repeats 2 trains two models on each subset and measures it."
    else:
        ceiling = (
            f"Noise ceiling: about {report.noise_ceiling} for a perfect prediction, because two models of one "
            f"subset agree at {report.agreement} only."
        )
    return Group(about, table, note, Text(ceiling, style="dim"))


def qld_view(report: QldReport) -> RenderableType:
    """Draw a line about the removal, and a table of methods, the best first."""
    table = Table(box=box.SIMPLE)
    table.add_column("removed")
    table.add_column("rise of the loss [95 %]", justify="right")
    table.add_column("beyond random [95 %]", justify="right")
    table.add_column("s", justify="right")
    for method in sorted(report.methods, key=lambda one: -one.rise.mean):
        table.add_row(method.name, str(method.rise), str(method.beyond_random), f"{method.seconds:.1f}")
    table.add_row(f"{report.random_sets} random sets", str(report.random), "", "")
    about = Text(
        f"{report.removed:,} of {report.samples:,} samples removed ({_share(report.top)}); {report.models} "
        f"models; {len(report.queries)} queries, loss {report.loss} with all samples"
    )
    note = Text(
        "Query loss difference: loss after retraining without the samples minus loss with all.", style="dim"
    )
    return Group(about, table, note)


def _share(value: float) -> str:
    return f"{100 * value:.3g}%"


def _asked(report: BackdoorReport | TraceReport) -> Text:
    generated = f", {report.generated:,} of them answered by the model now" if report.generated else ""
    left_out = f"; {report.left_out:,} queries of another kind left out" if report.left_out else ""
    if isinstance(report, BackdoorReport):
        left_out += _not_attacked(report)
    return Text(
        printable(
            f"{report.queries:,} queries{generated}; {report.samples:,} samples, {report.relevant:,} "
            f"({report.relevant / report.samples:.1%}) with {report.label}{left_out}"
        )
    )


def _not_attacked(report: BackdoorReport) -> str:
    """How it was decided whose answers show the behaviour, and how many do not."""
    if report.attacked is None:
        return ""
    if report.attacked_by == "field":
        reason = f"their field {report.attacked} is not true"
    else:
        reason = f"their answers do not match the regular expression {report.attacked}"
    return f"; {report.not_attacked:,} queries left out because {reason}"


def _table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Interval]]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, values in rows:
        table.add_row(name, *(_interval(value) for value in values))
    return table


def _interval(value: Interval) -> Text:
    text = Text(f"{value.mean:.3f}")
    if value.low is not None and value.high is not None:
        text.append(f"\n{value.low:.2f}–{value.high:.2f}", style="dim")
    return text


def _costs(report: BackdoorReport) -> Group:
    table = Table(title="time and memory", title_justify="left", title_style="bold", box=None, pad_edge=False)
    columns: dict[str, Callable[[MethodCost], str]] = {
        "once": lambda cost: _seconds(cost.preparation),
        "a query alone": lambda cost: "?" if cost.seconds_alone is None else _seconds(cost.seconds_alone),
        "of many": lambda cost: _seconds(cost.seconds_together),
        "memory": lambda cost: "?" if cost.memory is None else size(cost.memory),
        "caching pays from": _pays,
    }
    if any(method.cost.device_memory is not None for method in report.methods):
        columns["GPU"] = lambda cost: "" if cost.device_memory is None else size(cost.device_memory)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for method in report.methods:
        table.add_row(_named(method), *(column(method.cost) for column in columns.values()))
    sampled = report.caching.sampled
    source = f"estimated from {sampled:,} samples" if sampled else "as given"
    notes = [f"the work that rapidin does once is its caching, {source}"]
    if any(method.cost.resumed for method in report.methods):
        notes.append("*: scores and times of an earlier run")
    return Group(table, Text("; ".join(notes), style="dim"))


def _named(method: MethodQuality) -> str:
    return f"{method.name} *" if method.cost.resumed else method.name


def _pays(cost: MethodCost) -> str:
    if cost.pays_from is None:
        return ""
    return f"{cost.pays_from:,} queries"


def _seconds(value: float) -> str:
    if value == 0:
        return "–"
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"
