"""Stored objects that only somebody else can show in the form of a kind: a conversion webhook of a custom kind.

Reading the store never awaits; where an object has to be converted first, the read raises `NeedsConversion`. Whoever may await
runs the read through `converted`, which asks the webhook once for all objects concerned and then reads again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Converter(Protocol):
    """Converts the stored objects of one custom kind."""

    async def convert(self, values: Sequence[bytes], version: str) -> None:
        """Convert `values` to `version` and remember the results. Raises ApiError."""
        ...


class NeedsConversion(Exception):
    """Objects have to be converted to `version` before they can be shown."""

    def __init__(self, converter: Converter, values: Sequence[bytes], version: str) -> None:
        super().__init__("an object needs conversion")
        self._converter = converter
        self._values = values
        self._version = version

    @classmethod
    def all_of(cls, needs: Sequence[NeedsConversion]) -> NeedsConversion:
        """Return one need for the objects of many, which are of one kind."""
        first = needs[0]
        return cls(first._converter, [value for need in needs for value in need._values], first._version)

    async def resolve(self) -> None:
        """Convert them. Raises ApiError."""
        await self._converter.convert(self._values, self._version)


async def converted(work: Callable[[], T]) -> T:
    """Return what `work` returns, as soon as everything it needs has been converted."""
    while True:
        try:
            return work()
        except NeedsConversion as need:
            await need.resolve()
