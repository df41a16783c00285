"""Arrow tables from rows and columns. pyarrow comes with the extra `korch-cluster[lab]` and is loaded when the first table is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HINT = "pyarrow is not installed; it comes with the extra: pip install 'korch-cluster[lab]'"


def load() -> Any:
    """Return the module pyarrow. Raises ImportError with how to get it."""
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(HINT) from error
    return pyarrow


def from_rows(columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> Any:
    """Return a pyarrow.Table; `columns` names the kind of each: text, whole or real. Raises ImportError."""
    pyarrow = load()
    types = {"text": pyarrow.string(), "whole": pyarrow.int64(), "real": pyarrow.float64()}
    cells = list(zip(*rows, strict=True)) or [()] * len(columns)
    arrays = [pyarrow.array(cells[index], type=types[kind]) for index, kind in enumerate(columns.values())]
    return pyarrow.Table.from_arrays(arrays, names=list(columns))


def from_columns(columns: Mapping[str, Sequence[Any]]) -> Any:
    """Return a pyarrow.Table of columns of equal length. Raises ImportError."""
    return load().table(dict(columns))


def write_parquet(table: Any, path: Path | Any) -> None:
    """Write a pyarrow.Table as Parquet to a path or a binary file. Raises OSError."""
    load()
    from pyarrow import parquet

    parquet.write_table(table, path)


def joined(tables: Sequence[Any]) -> Any:
    """Return tables one below the other; a column that one of them lacks is null there. Raises ImportError."""
    return load().concat_tables(list(tables), promote_options="default")
