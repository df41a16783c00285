"""Container logs: the runtime's file format turned into what a reader asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from korch.runtime.clock import parse_rfc3339
from korch_agent.log_files import LogOptions, read_log

LINES = (
    "2026-01-01T00:00:01.123456789Z stdout F one",
    "2026-01-01T00:00:02.123456789+00:00 stderr F two",
    "2026-01-01T00:00:03.1Z stdout P thr",
    "2026-01-01T00:00:03.2Z stdout F ee",
    "2026-01-01T00:00:04Z stdout F ",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return path


async def ended() -> bool:
    return False


async def text(file: Path, options: LogOptions) -> str:
    return b"".join([piece async for piece in read_log(file, options, ended)]).decode()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (LogOptions(), "one\ntwo\nthree\n\n"),
        (LogOptions(tail_lines=0), ""),
        (LogOptions(tail_lines=1), "\n"),
        (LogOptions(tail_lines=2), "three\n\n"),
        (LogOptions(tail_lines=99), "one\ntwo\nthree\n\n"),
        (LogOptions(limit_bytes=5), "one\nt"),
        (LogOptions(stream="stderr"), "two\n"),
        (LogOptions(since=parse_rfc3339("2026-01-01T00:00:03Z")), "three\n\n"),
        (LogOptions(timestamps=True, tail_lines=1), "2026-01-01T00:00:04Z \n"),
    ],
)
async def test_a_reader_gets_the_part_that_was_asked_for(file: Path, options: LogOptions, expected: str) -> None:
    assert await text(file, options) == expected


async def test_a_container_without_a_log_has_an_empty_one(tmp_path: Path) -> None:
    assert await text(tmp_path / "absent", LogOptions()) == ""


async def test_following_ends_after_the_container_and_shows_its_last_words(file: Path) -> None:
    asked = 0

    async def is_running() -> bool:
        nonlocal asked
        asked += 1
        with file.open("a") as out:
            out.write(f"2026-01-01T00:00:05Z stdout F late {asked}\n")
        return asked < 3

    seen = [piece async for piece in read_log(file, LogOptions(follow=True, tail_lines=0), is_running)]
    assert b"".join(seen).decode() == "late 1\nlate 2\nlate 3\n"


async def test_following_goes_on_in_the_new_file_after_a_rotation(file: Path) -> None:
    asked = 0

    async def is_running() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            with file.open("a") as log:
                log.write("2026-01-01T00:00:08Z stdout F last of the old\n")
            file.rename(file.with_suffix(".old"))
            file.write_text("2026-01-01T00:00:09Z stdout F fresh\n")
        return asked < 3

    seen = [piece async for piece in read_log(file, LogOptions(follow=True), is_running)]
    assert b"".join(seen).decode().endswith("\n\nlast of the old\nfresh\n")


async def test_a_long_log_is_cut_from_its_end(tmp_path: Path) -> None:
    file = tmp_path / "0.log"
    file.write_text("".join(f"2026-01-01T00:00:01Z stdout F line {number} {'x' * 50}\n" for number in range(5000)))
    shown = await asyncio.wait_for(text(file, LogOptions(tail_lines=1500)), 30)
    assert [line.split()[1] for line in shown.splitlines()] == [str(number) for number in range(3500, 5000)]
