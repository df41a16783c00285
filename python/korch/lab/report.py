"""A report as one HTML page that needs nothing else: no script, no font, no style sheet from anywhere.

A `Page` is a list of `Section`s, a section a list of blocks (text, tables, charts) in the order in which they were added. Nothing is drawn
until `html()`, which is a pure function of what was added: equal content gives equal bytes. Charts are inline SVG whose values show as the
browser's own tooltips. A series may have any number of points: what falls on one pixel column is drawn as its first, lowest, highest and
last value, so peaks stay visible and the page stays small. Every text is escaped; colours follow the reader's light or dark mode, and
series differ in their dashes too, for readers who cannot tell colours apart.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TypeAlias

WIDTH_PX, HEIGHT_PX = 860, 260
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 64, 12, 12, 40
TICKS = 5
# What differs by less is drawn as if it did not: labels have twelve decimals.
SPAN_MIN = 1e-12

Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Series:
    """A named line of (x, y) points in order of x. A y that is not a number leaves a gap."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass
class Section:
    """A heading and its blocks. Every method adds one block and gives the section back, so that calls may be chained."""

    title: str
    blocks: list[str] = field(default_factory=list)

    def text(self, *paragraphs: str) -> "Section":
        """Add paragraphs of plain text."""
        self.blocks.extend(f"<p>{escape(one)}</p>" for one in paragraphs)
        return self

    def code(self, text: str) -> "Section":
        """Add text as it is, in a fixed-width font."""
        self.blocks.append(f"<pre>{escape(text)}</pre>")
        return self

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, caption: str = "") -> "Section":
        """Add a table. Numbers are aligned to the right and shortened to four significant digits after the point; None is an empty cell.

        Raises ValueError for a row that has more or fewer cells than there are columns.
        """
        head = "".join(f"<th scope=col>{escape(name)}</th>" for name in columns)
        body: list[str] = []
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(columns)} columns: {row!r}")
            body.append("<tr>" + "".join(_cell(value) for value in row) + "</tr>")
        above = f"<caption>{escape(caption)}</caption>" if caption else ""
        self.blocks.append(f"<div class=scroll><table>{above}<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>")
        return self

    def lines(
        self, series: Sequence[Series], *, title: str = "", x_label: str = "", y_label: str = "", is_stepped: bool = False
    ) -> "Section":
        """Add a line chart, or with `is_stepped` one whose values hold until the next point."""
        self.blocks.append(_chart(series, _Labels(title, x_label, y_label), is_stepped))
        return self

    def bars(self, values: Sequence[tuple[str, float]], *, title: str = "", unit: str = "") -> "Section":
        """Add horizontal bars from zero, one for each (name, value); values below zero count as zero."""
        self.blocks.append(_bars(values, title, unit))
        return self


@dataclass
class Page:
    """A report. `facts` are (name, value) pairs that stand below the title: seed, versions, machine."""

    title: str
    facts: Sequence[tuple[str, Cell]] = ()
    sections: list[Section] = field(default_factory=list)

    def section(self, title: str) -> Section:
        """Begin a section; blocks are added to what comes back."""
        made = Section(title)
        self.sections.append(made)
        return made

    def html(self) -> str:
        """Return the whole page as text, the same for the same content."""
        facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(number(value))}</dd></div>" for name, value in self.facts)
        contents = "".join(f'<li><a href="#s{index}">{escape(one.title)}</a></li>' for index, one in enumerate(self.sections))
        body = "".join(
            f'<section id="s{index}"><h2>{escape(one.title)}</h2>{"".join(one.blocks)}</section>' for index, one in enumerate(self.sections)
        )
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head><body><main>'
            f"<h1>{escape(self.title)}</h1>{f'<dl>{facts}</dl>' if facts else ''}"
            f"{f'<nav><ol>{contents}</ol></nav>' if len(self.sections) > 1 else ''}{body}</main></body></html>\n"
        )


def number(value: Cell) -> str:
    """Return a value as a reader wants it: integers in groups of three, fractions with four significant digits, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.1f}"
    return f"{value:.4g}"


STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5a6470;--line:#d6dbe1;--paper:#fff;--band:#f5f7f9;
--c0:#0b62b0;--c1:#c2410c;--c2:#0f7b53;--c3:#8a2fb0;--c4:#a16207;--c5:#b4154f}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#a0aab5;--line:#3a424c;--paper:#14181d;--band:#1c2229;
--c0:#6db3f2;--c1:#f59b62;--c2:#5fd0a0;--c3:#d08cf0;--c4:#e0b64a;--c5:#f486ad}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1000px;margin:0 auto;padding:24px}h1{font-size:26px;margin:0 0 8px}h2{font-size:19px;margin:36px 0 8px}
dl{display:flex;flex-wrap:wrap;gap:4px 28px;margin:0 0 12px}dl div{display:flex;gap:8px}dt{color:var(--soft)}dd{margin:0}
nav ol{padding-left:20px;columns:2}a{color:var(--c0)}figure{margin:16px 0}figcaption{font-weight:600}
.scroll{overflow-x:auto;margin:12px 0}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:4px 0}th,td{padding:4px 12px 4px 0;text-align:left;border-bottom:1px solid var(--line)}
td.n{text-align:right}tbody tr:nth-child(even){background:var(--band)}pre{background:var(--band);padding:12px;overflow-x:auto}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:12px}.grid{stroke:var(--line)}.axis{stroke:var(--soft)}
.key{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;padding:0;margin:4px 0}.key svg{width:28px;height:10px;display:inline-block}
.v{fill:none;stroke-width:1.6}.k0{stroke:var(--c0)}.k1{stroke:var(--c1);stroke-dasharray:7 3}.k2{stroke:var(--c2);stroke-dasharray:2 2}
.k3{stroke:var(--c3);stroke-dasharray:9 3 2 3}.k4{stroke:var(--c4);stroke-dasharray:4 4}.k5{stroke:var(--c5);stroke-dasharray:1 3}
.bar{fill:var(--c0)}
""".replace("\n", "")

COLOURS = 6


@dataclass(frozen=True)
class _Labels:
    title: str
    x: str
    y: str


@dataclass(frozen=True)
class _Frame:
    """The range of values that a chart shows, and where they fall on the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT_PX + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH_PX - LEFT_PX - RIGHT_PX)

    def y(self, value: float) -> float:
        return HEIGHT_PX - BOTTOM_PX - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT_PX - TOP_PX - BOTTOM_PX)


def _cell(value: Cell) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"<td{' class=n' if is_number else ''}>{escape(number(value))}</td>"


def _chart(series: Sequence[Series], labels: _Labels, is_stepped: bool) -> str:
    drawn = [one for one in series if any(math.isfinite(y) for _, y in one.points)]
    caption = f"<figcaption>{escape(labels.title)}</figcaption>" if labels.title else ""
    if not drawn:
        return f"<figure>{caption}<p>No values.</p></figure>"
    frame = _frame(drawn)
    parts = [_axes(frame, labels)]
    for index, one in enumerate(drawn):
        path = _path(one.points, frame, is_stepped)
        parts.append(f'<path class="v k{index % COLOURS}" d="{path}"><title>{escape(one.name)}</title></path>')
    sample = '<svg viewBox="0 0 28 10" aria-hidden="true"><path class="v k{}" d="M0 5H28"/></svg>'
    key = "".join(f"<li>{sample.format(index % COLOURS)} {escape(one.name)}</li>" for index, one in enumerate(drawn))
    named = escape(f"{labels.title or labels.y}: {', '.join(one.name for one in drawn)}")
    return (
        f'<figure>{caption}<ul class=key>{key}</ul><svg viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" role="img" aria-label="{named}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _frame(series: Sequence[Series]) -> _Frame:
    xs = [x for one in series for x, y in one.points if math.isfinite(y)]
    ys = [y for one in series for _, y in one.points if math.isfinite(y)]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(0.0, *ys) if len(ys) > 1 else min(0.0, ys[0]), max(ys)
    if x_high - x_low < SPAN_MIN:
        x_high = x_low + 1
    if y_high - y_low < SPAN_MIN:
        y_high = y_low + 1
    return _Frame(x_low, x_high, y_low, y_high)


def _axes(frame: _Frame, labels: _Labels) -> str:
    left, right, bottom = LEFT_PX, WIDTH_PX - RIGHT_PX, HEIGHT_PX - BOTTOM_PX
    parts: list[str] = []
    for value in _ticks(frame.y_low, frame.y_high):
        y = _short(frame.y(value))
        parts.append(
            f'<path class=grid d="M{left} {y}H{right}"/><text x="{left - 6}" y="{y}" dy="4" text-anchor="end">{number(value)}</text>'
        )
    for value in _ticks(frame.x_low, frame.x_high):
        x = _short(frame.x(value))
        parts.append(f'<path class=axis d="M{x} {bottom}v4"/><text x="{x}" y="{bottom + 17}" text-anchor="middle">{number(value)}</text>')
    parts.append(f'<path class=axis d="M{left} {bottom}H{right}"/>')
    if labels.x:
        parts.append(f'<text x="{right}" y="{HEIGHT_PX - 6}" text-anchor="end">{escape(labels.x)}</text>')
    if labels.y:
        parts.append(f'<text x="{left + 4}" y="{TOP_PX}" dy="8">{escape(labels.y)}</text>')
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Return round values from `low` to `high`, about `TICKS` of them."""
    rough = (high - low) / TICKS
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _path(points: Sequence[tuple[float, float]], frame: _Frame, is_stepped: bool) -> str:
    parts: list[str] = []
    is_open = False
    for x, y in _thin(points, frame):
        if not math.isfinite(y):
            is_open = False
            continue
        to_x, to_y = _short(frame.x(x)), _short(frame.y(y))
        if not is_open:
            parts.append(f"M{to_x} {to_y}")
        elif is_stepped:
            parts.append(f"H{to_x}V{to_y}")
        else:
            parts.append(f"L{to_x} {to_y}")
        is_open = True
    return "".join(parts)


def _thin(points: Sequence[tuple[float, float]], frame: _Frame) -> Iterable[tuple[float, float]]:
    """Yield at most four points of each pixel column: the first, the lowest, the highest and the last, in their order."""
    column: list[tuple[float, float]] = []
    at: int | None = None
    for point in points:
        here = int(frame.x(point[0]))
        if here != at:
            yield from _extremes(column)
            column, at = [], here
        column.append(point)
    yield from _extremes(column)


def _extremes(column: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(column) <= 4:
        return column
    order = range(len(column))
    finite = [index for index in order if math.isfinite(column[index][1])]
    if not finite:
        return column[:1]
    lowest = min(finite, key=lambda index: column[index][1])
    highest = max(finite, key=lambda index: column[index][1])
    return [column[index] for index in sorted({0, lowest, highest, len(column) - 1})]


def _bars(values: Sequence[tuple[str, float]], title: str, unit: str) -> str:
    caption = f"<figcaption>{escape(title)}</figcaption>" if title else ""
    if not values:
        return f"<figure>{caption}<p>No values.</p></figure>"
    left, row = 240, 24
    highest = max((value for _, value in values if math.isfinite(value)), default=0.0) or 1.0
    parts: list[str] = []
    for index, (name, value) in enumerate(values):
        length = max(0.0, value if math.isfinite(value) else 0.0) / highest * (WIDTH_PX - left - 120)
        y = index * row
        parts.append(
            f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect class=bar x="{left}" y="{y + 4}" width="{_short(length)}" height="{row - 8}"/>'
            f'<text x="{_short(left + length + 6)}" y="{y + 16}">{escape(number(value))} {escape(unit)}</text>'
        )
    return (
        f'<figure>{caption}<svg viewBox="0 0 {WIDTH_PX} {len(values) * row}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
