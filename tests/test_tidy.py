"""How the code reads, as a test: what a reviewer would otherwise have to say again and again."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
FILE_BYTES_MAX = 500_000
# Rooms and files are named after what they hold.
EMPTY_NAMES = {"util", "utils", "common", "helper", "helpers", "misc", "manager"}
BANNED_WORDS = re.compile(
    "|".join(("FIX" + "ME", "TO" + "DO", "X" + "XX", "NotImplemented" + "Error", "todo" + "!", "unimplemented" + "!"))
)


def tracked(*patterns: str) -> list[Path]:
    shown = subprocess.run(["git", "ls-files", *patterns], cwd=TOP, capture_output=True, text=True, check=True).stdout
    return [TOP / line for line in shown.splitlines() if (TOP / line).exists()]


def product() -> list[Path]:
    return [file for file in tracked("*.py") if file.parts[len(TOP.parts)] in ("python", "agent")]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def named(file: Path) -> str:
    return str(file.relative_to(TOP))


def test_every_module_says_what_it_is() -> None:
    assert [named(file) for file in product() if not ast.get_docstring(ast.parse(file.read_text()))] == []


def test_files_and_functions_are_short() -> None:
    long_files = [named(file) for file in tracked("*.py", "*.rs") if len(file.read_text().splitlines()) > FILE_LINES_MAX]
    long_functions = [
        f"{named(file)}:{one.lineno} {one.name}"
        for file in product()
        for one in functions(ast.parse(file.read_text()))
        if (one.end_lineno or one.lineno) - one.lineno >= FUNCTION_LINES_MAX
    ]
    assert long_files + long_functions == []


def test_no_file_is_named_after_nothing() -> None:
    assert [named(file) for file in tracked("*.py", "*.rs") if file.stem in EMPTY_NAMES] == []


def test_nothing_is_left_for_later() -> None:
    found = [
        f"{named(file)}:{number}"
        for file in tracked("*.py", "*.rs", "*.toml", "*.sh", "Makefile")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if BANNED_WORDS.search(line)
    ]
    assert found == []


def test_no_file_is_large() -> None:
    assert [named(file) for file in tracked() if file.is_file() and file.stat().st_size > FILE_BYTES_MAX] == []


@pytest.mark.parametrize(
    ("word", "inside", "room"),
    [
        ("_native", "python/korch/_core", "the facade is the only one to name the extension"),
        ("use pyo3", "rust/src/py", "the boundary is the only room that names pyo3"),
    ],
)
def test_the_boundary_is_named_in_one_room(word: str, inside: str, room: str) -> None:
    pattern = re.compile(r"^\s*(use pyo3|import .*_native|from .*_native)", re.MULTILINE)
    files = tracked("rust/*.rs") if word == "use pyo3" else product()
    found = [
        named(file)
        for file in files
        if not named(file).startswith(inside)
        and any(word in line.group(0) and "TYPE_CHECKING" not in file.read_text() for line in pattern.finditer(file.read_text()))
    ]
    assert found == [], room


def test_rust_rooms_import_downwards() -> None:
    rooms = {"store", "scheduler", "proxy", "front", "etcd", "py"}
    allowed = {"api": set(), "store": set(), "scheduler": set(), "proxy": set(), "front": rooms - {"etcd", "py"}, "etcd": {"store"}}
    forbidden = {room: sorted(rooms - seen - {room}) for room, seen in allowed.items()}
    found = [
        f"{named(file)}: crate::{other}"
        for file in tracked("rust/*.rs")
        for other in forbidden.get(file.relative_to(TOP).parts[2], ())
        if f"crate::{other}" in file.read_text()
    ]
    assert found == []


def test_the_project_speaks_of_itself_alone() -> None:
    places = re.compile("/" + "work/|/" + "root/|/" + "farm/")
    found = [
        f"{named(file)}:{number}"
        for file in tracked()
        if file.suffix in (".py", ".rs", ".md", ".toml", ".sh", ".yaml", ".json") or file.name in ("Makefile", "run")
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1)
        if places.search(line)
    ]
    assert found == []
