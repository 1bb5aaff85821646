"""The view of a search: the generation, and the samples behind it with words shaded by influence."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.style import Style
from rich.table import Table
from rich.text import Text

from rapidin.commands.views.store_view import metadata_line, one_line, prompt_ending, shortened
from rapidin.records import Hit, SearchResult, TokenInfluence, TokenResult
from rapidin.support import printable

_TOWARDS = ("#dbe9f6", "#a6cee3", "#5f9fd0", "#2b6cb0", "#123f73")
"""Backgrounds of words that made the generation more likely, weak to strong; colour-blind people can tell them."""
_AWAY = ("#fbe3d6", "#f7b799", "#e58267", "#c13b3b", "#7a0e22")
"""Backgrounds of words that made the generation less likely, weak to strong."""
_DARK_FROM = 2
"""Number of the first dark background, which has white letters. The terminal's own colour might not be legible."""
_LONGEST_RESPONSE = 400
_LONGEST_PLAIN = 240
_SHOWN_PER_TOKEN = 3
_NAMED_WORDS = 5


def search_view(result: SearchResult) -> RenderableType:
    """Show the generation, then the samples behind it, the strongest first."""
    query = result.query
    title = "the model's answer" if query.generated else "generation"
    scale = _scale(result)
    parts: list[RenderableType] = [
        Panel(
            Text(shortened(query.prompt), style="dim"),
            title=f"prompt · {escape(printable(query.id))}",
            title_align="left",
        ),
        Panel(_generation(result), title=title, title_align="left"),
        Rule(_title("proponents", result.proponents, _asked(result), "more", 1), align="left"),
        _hits_view(result.proponents, scale),
    ]
    if result.opponents:
        parts.append(Rule(_title("opponents", result.opponents, "it", "less", -1), align="left"))
        parts.append(_hits_view(result.opponents, scale))
    if result.by_token:
        parts.append(Rule("by token: what each part of the generation goes back to (estimated)", align="left"))
        parts.append(_by_token(result.by_token))
    if scale:
        parts.append(WithColours(_legend(scale)))
        parts.append(Text(f"a sample's words add up to its score ({result.explained})", style="dim"))
    parts.append(Text(_way(result.index), style="dim"))
    return Group(*parts)


def _way(index: str) -> str:
    """Say how the samples were found."""
    if index == "exact":
        return "searched exactly"
    return f"searched through index {index}: approximate, some samples may be missed; --exact misses none"


def _title(end: str, hits: Sequence[Hit], asked: str, more: str, sign: int) -> str:
    """Say what the samples of an end have in common; some may be on the other side of zero."""
    if all(sign * hit.score >= 0 for hit in hits):
        return f"{end}: training on them made {asked} {more} likely"
    side = "above" if sign > 0 else "below"
    return f"{end}: training on those {side} zero made {asked} {more} likely"


def _asked(result: SearchResult) -> str:
    parts = [repr(result.query.generation[start:end]) for start, end in result.query.spans]
    return ", ".join(dict.fromkeys(map(shortened, parts))) or "this answer"


def _generation(result: SearchResult) -> Text:
    """Show the generation, shortened; spans that were asked about are underlined."""
    text = result.query.generation
    if not result.query.spans:
        return Text(shortened(text))
    shown = Text(printable(text))
    for start, end in result.query.spans:
        shown.stylize("bold underline", start, end)
    return shown


def _hits_view(hits: Sequence[Hit], scale: float) -> RenderableType:
    """Show a line of figures, the prompt and the response of each hit."""
    if not hits:
        return Text("none: no sample meets the filter", style="dim")
    parts: list[RenderableType] = []
    for hit in hits:
        figures = Text(f"{hit.rank:>4}  ")
        figures.append(f"{hit.score:+.4f}", style="bold")
        if hit.exact is not None:
            figures.append(f"  (estimated {hit.estimate:+.4f})", style="dim")
        figures.append(f"  {printable(hit.id)}  ")
        figures.append(metadata_line(hit), style="dim")
        texts = Text(prompt_ending(hit.prompt), style="dim")
        texts.append("\n→ ", style="not dim")
        if hit.token_influences:
            texts.append_text(_shaded(hit, scale))
        else:
            texts.append(shortened(one_line(hit.response), _LONGEST_PLAIN), style="not dim")
        parts += [figures, Padding(texts, (0, 0, 0, 6))]
        if hit.words:
            parts.append(WithoutColours(Padding(_strongest(hit.words), (0, 0, 0, 6))))
    return Group(*parts)


class WithoutColours:
    """Something that is shown only if there are no shades."""

    def __init__(self, view: RenderableType) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich."""
        if console.color_system is None or console.no_color:
            yield self._view


class WithColours(WithoutColours):
    """Something that is shown only if there are shades."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich."""
        if console.color_system is not None and not console.no_color:
            yield self._view


def _strongest(words: Sequence[TokenInfluence]) -> Text:
    """Name the words of largest influence, for a terminal without shades."""
    found = sorted((word for word in words if word.token.strip()), key=lambda word: -abs(word.influence))
    named = ", ".join(f"{one_line(word.token)} {word.influence:+.4f}" for word in found[:_NAMED_WORDS])
    return Text(f"strongest words: {named}", style="dim")


def _shaded(hit: Hit, scale: float) -> Text:
    """Show the part of a sample's text around its strongest word, with words shaded by influence."""
    words = [word for word in hit.words if word.token.strip()]
    if not words:
        return Text(shortened(one_line(hit.response), _LONGEST_PLAIN))
    first, last = _window(words)
    begin, end = words[first].start, words[last - 1].end
    part = Text(printable(re.sub(r"\s", " ", hit.text[begin:end])), style="not dim")
    for word in words[first:last]:
        blanks = len(word.token) - len(word.token.lstrip())
        part.stylize(_style(word.influence, scale), word.start + blanks - begin, word.end - begin)
    return Text.assemble("… " if first else "", part, " …" if last < len(words) else "")


def _window(words: Sequence[TokenInfluence]) -> tuple[int, int]:
    """Choose the words to show, as a range: all if they are short enough, else some around the strongest."""
    strongest = max(range(len(words)), key=lambda number: abs(words[number].influence))
    first = 0
    if words[strongest].end - words[0].start > _LONGEST_RESPONSE:
        wanted = words[strongest].end - _LONGEST_RESPONSE // 2
        first = next(number for number, word in enumerate(words) if word.start >= wanted or number == strongest)
    last = first + 1
    while last < len(words) and words[last].end - words[first].start <= _LONGEST_RESPONSE:
        last += 1
    return first, max(last, strongest + 1)


def _style(influence: float, scale: float) -> Style:
    shades = _TOWARDS if influence > 0 else _AWAY
    step = int(len(shades) * min(1.0, abs(influence) / scale) - 1e-9) if scale else 0
    if not scale or abs(influence) < scale / (2 * len(shades)):
        return Style(dim=False)
    return Style(color="#ffffff" if step >= _DARK_FROM else "#000000", bgcolor=shades[step], dim=False)


def _scale(result: SearchResult) -> float:
    """Return the largest influence of a word that is shown; 0 if none was computed."""
    words = [word for hit in (*result.proponents, *result.opponents) for word in hit.words]
    return max((abs(word.influence) for word in words), default=0.0)


def _legend(scale: float) -> Text:
    legend = Text("\nwords: ")
    for shades, sign in ((reversed(_AWAY), -1), (_TOWARDS, 1)):
        legend.append(f"{sign * scale:+.4f} " if sign < 0 else " 0 ")
        for shade in shades:
            legend.append("  ", style=Style(bgcolor=shade))
    legend.append(f" {scale:+.4f}")
    return legend


def _by_token(results: Sequence[TokenResult]) -> RenderableType:
    """Show the strongest samples of every token."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("token", no_wrap=True)
    table.add_column("proponents", overflow="fold")
    opponents = any(result.opponents for result in results)
    if opponents:
        table.add_column("opponents", overflow="fold")
    for number, result in enumerate(results):
        ends = number == len(results) - 1 and not result.token
        shown = one_line(result.token) or ("(end)" if ends else ascii(result.token))
        cells = [Text(shown), _briefly(result.proponents)]
        table.add_row(*cells, *([_briefly(result.opponents)] if opponents else []))
    return table


def _briefly(hits: Sequence[Hit]) -> Text:
    return Text("   ".join(f"{printable(hit.id)} {hit.score:+.4f}" for hit in hits[:_SHOWN_PER_TOKEN]))
