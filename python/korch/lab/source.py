"""Files that people hand to the lab, read so that whatever is wrong with them is said with file, line and reason.

YAML keeps the line of every field, CSV the line of every row. Files whose name ends in .gz are unpacked on the way. Nothing here
knows what the content means; whoever does raises `BadInput` with the place that this module gave out.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import yaml

from korch.api import quantity


class BadInput(ValueError):
    """Something that was handed in cannot be used. `str()` is `file:line: reason`."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a file (or what else it came from) and a line, counted from 1; line 0 means the file as a whole."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its content, and where its fields stand."""

    source: str
    value: Any
    node: yaml.Node

    def place(self, *path: str | int) -> Place:
        """Return where the field at `path` stands, or the nearest field around it that exists."""
        node, line = self.node, self.node.start_mark.line
        for step in path:
            inner = _step(node, step)
            if inner is None:
                break
            node, line = inner
        return Place(self.source, line + 1)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its cells by column name. The readers raise BadInput with the row's place."""

    place: Place
    cells: Sequence[str]
    columns: dict[str, int]

    def text(self, column: str, default: str | None = None) -> str:
        """Return a cell without surrounding blanks; `default` for one that is empty or whose column is missing, if given."""
        at = self.columns.get(column)
        found = self.cells[at].strip() if at is not None else ""
        if not found:
            if default is None:
                raise BadInput(self.place, f"{column} is empty")
            return default
        return found

    def number(self, column: str, default: float | None = None) -> float:
        """Return a cell as a finite number that is not negative."""
        found = self.signed(column, default)
        if found < 0:
            raise BadInput(self.place, f"{column} is {found:g}: must not be negative")
        return found

    def signed(self, column: str, default: float | None = None) -> float:
        """Return a cell as a finite number."""
        text = self.text(column, None if default is None else "")
        if not text:
            return cast(float, default)
        try:
            found = float(text)
        except ValueError:
            raise BadInput(self.place, f"{column} is {text!r}: not a number") from None
        if not math.isfinite(found):
            raise BadInput(self.place, f"{column} is {text!r}: not a finite number")
        return found

    def whole(self, column: str, default: int | None = None) -> int:
        """Return a cell as a whole number that is not negative."""
        found = self.number(column, default)
        if found != int(found):
            raise BadInput(self.place, f"{column} is {found:g}: not a whole number")
        return int(found)

    def quantity(self, column: str, default: str | None = None) -> str:
        """Return a cell that is a Kubernetes quantity and not negative, as it stands there."""
        text = self.text(column, default)
        try:
            is_negative = quantity.milli(text) < 0
        except ValueError as error:
            raise BadInput(self.place, f"{column} is {text!r}: {error}") from None
        if is_negative:
            raise BadInput(self.place, f"{column} is {text!r}: must not be negative")
        return text


def read_text(path: str | Path) -> str:
    """Return a file's text, unpacked when its name ends in .gz. Raises BadInput, also for what is not UTF-8."""
    try:
        with _open(path) as file:
            return file.read()
    except (OSError, EOFError) as error:
        raise BadInput(Place(str(path)), getattr(error, "strerror", None) or str(error)) from error
    except UnicodeDecodeError as error:
        raise BadInput(Place(str(path)), f"not text: {error.reason} at byte {error.start}") from error


def documents(path: str | Path) -> list[Document]:
    """Return the documents of a YAML or JSON file that are not empty. Raises BadInput."""
    return parse(read_text(path), str(path))


def parse(text: str, source: str) -> list[Document]:
    """Return the documents of a text that are not empty. Raises BadInput."""
    found: list[Document] = []
    loader = yaml.CSafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                break
            value = loader.construct_document(node)
            if value is not None:
                found.append(Document(source, value, node))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        raise BadInput(Place(source, line), error.problem or "not YAML") from error
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(Place(source), str(error)) from error
    finally:
        loader.dispose()
    return found


def table(
    path: str | Path, *, needed: Sequence[str], known: Sequence[str] | None = None, order: Sequence[str] | None = None
) -> Iterator[Row]:
    """Yield the rows of a CSV file.

    Its first row names the columns, unless `order` names them for a file without such a row; a first row that is `order` itself is
    passed over. Raises BadInput when a column of `needed` is missing, when there is one outside `known` (if given), and for a row
    that has more or fewer cells than there are columns. Empty lines are passed over.
    """
    source = str(path)
    file = io.StringIO(read_text(path), newline="")
    reader = csv.reader(file)
    names = list(order) if order is not None else None
    columns: dict[str, int] = {}
    try:
        for cells in reader:
            if not cells:
                continue
            if names is None or (not columns and [one.strip() for one in cells] == names):
                names = [one.strip() for one in cells]
                columns = _columns(Place(source, reader.line_num), names, needed, known)
                continue
            if not columns:
                columns = _columns(Place(source, reader.line_num), names, needed, known)
            if len(cells) != len(names):
                raise BadInput(Place(source, reader.line_num), f"{len(cells)} cells where there are {len(names)} columns")
            yield Row(Place(source, reader.line_num), cells, columns)
    except csv.Error as error:
        raise BadInput(Place(source, reader.line_num), str(error)) from error
    if not columns:
        raise BadInput(Place(source), "the file is empty")


def first_row(path: str | Path) -> list[str]:
    """Return the cells of the first line of a CSV file. Raises BadInput."""
    for cells in csv.reader(io.StringIO(read_text(path), newline="")):
        if cells:
            return [one.strip() for one in cells]
    raise BadInput(Place(str(path)), "the file is empty")


def seconds(text: str) -> float:
    """Return a time such as `90`, `90s`, `15m`, `1h30m` or `2d` in seconds. Raises ValueError."""
    parts = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?\s*", text)
    if parts is None or not any(parts.groups()):
        raise ValueError(f"{text!r} is no time such as 90s, 15m, 1h30m or 2d")
    return sum(float(part or 0) * scale for part, scale in zip(parts.groups(), (86_400, 3600, 60, 1), strict=True))


def kept(rows: Iterator[Row], read: Callable[[Row], None], *, skips_gaps: bool) -> int:
    """Hand every row to `read`; return how many it refused, which is none unless gaps are to be skipped. Raises BadInput."""
    skipped = 0
    for row in rows:
        try:
            read(row)
        except BadInput:
            if not skips_gaps:
                raise
            skipped += 1
    return skipped


def _open(path: str | Path) -> IO[str]:
    if str(path).endswith(".gz"):
        return cast(IO[str], gzip.open(path, "rt", encoding="utf-8", newline=""))
    return open(path, encoding="utf-8", newline="")


def _columns(place: Place, names: Sequence[str], needed: Sequence[str], known: Sequence[str] | None) -> dict[str, int]:
    missing = [one for one in needed if one not in names]
    if missing:
        raise BadInput(place, f"no column {', '.join(missing)}; there are {', '.join(names)}")
    if known is not None:
        strange = [one for one in names if one not in known]
        if strange:
            raise BadInput(place, f"unknown column {', '.join(strange)}; known are {', '.join(known)}")
    if len(set(names)) != len(names):
        raise BadInput(place, "a column is named twice")
    return {name: index for index, name in enumerate(names)}


def _step(node: yaml.Node, step: str | int) -> tuple[yaml.Node, int] | None:
    """Return what stands at a key or index, and its line: that of the key, because a value may begin below it."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return value, key.start_mark.line
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark.line
    return None
