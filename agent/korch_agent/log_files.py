"""Container logs as the runtime writes them, and what `kubectl logs` makes of them.

A line of the file is `<RFC 3339 time> stdout|stderr F|P <text>`; P marks a part that the next line continues. Mirrors
kubelet's pkg/kubelet/kuberuntime/logs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from korch.runtime.clock import parse_rfc3339

_FOLLOW_POLL_S = 0.1
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What a reader asks for. `tail_lines` and `limit_bytes` None: all; `since` is seconds since the epoch, 0: from the start."""

    follow: bool = False
    tail_lines: int | None = None
    since: float = 0
    timestamps: bool = False
    limit_bytes: int | None = None
    stream: str = ""


async def read_log(file: Path, options: LogOptions, is_running: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
    """Yield the log's text. With `follow` it ends when the container has ended and everything was read; a missing file is empty."""
    left = options.limit_bytes
    start = _tail_start(file, options.tail_lines) if options.tail_lines is not None else 0
    async for line in _lines(file, start, options.follow, is_running):
        text = _render(line, options)
        if not text:
            continue
        if left is not None:
            text = text[:left]
            left -= len(text)
        yield text
        if left == 0:
            return


async def _lines(file: Path, start: int, follow: bool, is_running: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
    if not file.exists():
        return
    source, kept = file.open("rb"), b""
    try:
        source.seek(start)
        while True:
            was_running = follow and await is_running()
            # Nothing is added to an old file once there is a new one: what is read of it now is all of it.
            is_rotated = follow and _is_another(file, source)
            while block := source.read(_BLOCK_BYTES):
                *whole, kept = (kept + block).split(b"\n")
                for line in whole:
                    yield line
            if is_rotated:
                source.close()
                source, kept = file.open("rb"), b""
            elif not was_running:
                return
            else:
                await asyncio.sleep(_FOLLOW_POLL_S)
    finally:
        source.close()


def _is_another(file: Path, source: BinaryIO) -> bool:
    """Return whether another file than the open one bears the name now."""
    try:
        return file.stat().st_ino != os.fstat(source.fileno()).st_ino
    except FileNotFoundError:
        return False


def _render(line: bytes, options: LogOptions) -> bytes:
    parts = line.split(b" ", 3)
    if len(parts) < 3:
        return b""
    time, stream, tag = parts[:3]
    text = parts[3] if len(parts) > 3 else b""
    if options.stream and stream.decode() != options.stream:
        return b""
    if options.since and parse_rfc3339(_microseconds(time.decode())) < options.since:
        return b""
    ending = b"" if tag.startswith(b"P") else b"\n"
    return (time + b" " if options.timestamps else b"") + text + ending


def _microseconds(time: str) -> str:
    """Cut nanoseconds to what datetime understands."""
    head, dot, fraction = time.partition(".")
    if not dot:
        return time
    digits = "".join(one for one in fraction if one.isdigit() or one in "+-:Z")
    for mark in ("Z", "+", "-"):
        if mark in digits:
            number, _, zone = digits.partition(mark)
            return f"{head}.{number[:6]}{mark}{zone}"
    return f"{head}.{digits[:6]}"


def _tail_start(file: Path, lines: int) -> int:
    """Return the offset of the last `lines` whole lines (parts count with the line that they belong to)."""
    if not file.exists():
        return 0
    size = file.stat().st_size
    if lines == 0:
        return size
    found, position, newlines = b"", size, 0
    with file.open("rb") as source:
        while position > 0 and newlines <= lines:
            step = min(_BLOCK_BYTES, position)
            position -= step
            source.seek(position)
            found = source.read(step) + found
            newlines = sum(1 for line in found.split(b"\n") if b" F " in line[:64])
    offsets, at = [], 0
    for line in found.split(b"\n"):
        offsets.append((at, line))
        at += len(line) + 1
    whole = [index for index, (_, line) in enumerate(offsets) if b" F " in line[:64] or line[:64].endswith(b" F")]
    if len(whole) <= lines:
        return position
    first = whole[-lines - 1] + 1
    return position + offsets[first][0]
