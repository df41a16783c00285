"""Randomness as a value that is handed in.

Every consumer draws from its own named stream, so that one more draw in one component does not shift the others:
a simulation's seed stays meaningful while the code changes.
"""

from __future__ import annotations

import hashlib
import os
import random

# The alphabet of Kubernetes' generated names: no vowels, no digits that look like letters.
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
# RFC 9562: the bits of a UUID that are random in version 4, and those that say so.
_UUID_RANDOM = ~(0xF << 76 | 0x3 << 62)
_UUID_VERSION_4 = 0x4 << 76 | 0x2 << 62


class Rng:
    """Named random streams, all derived from one seed. `seed=None` takes entropy from the machine."""

    def __init__(self, seed: int | None = None) -> None:
        self._seed = os.urandom(16) if seed is None else seed.to_bytes(16, "big", signed=False)
        self._streams: dict[str, random.Random] = {}

    def stream(self, label: str) -> random.Random:
        """Return the stream named `label`; the same object for the same label."""
        found = self._streams.get(label)
        if found is None:
            digest = hashlib.blake2b(self._seed + label.encode(), digest_size=16).digest()
            found = self._streams[label] = random.Random(int.from_bytes(digest, "big"))
        return found

    def uid(self) -> str:
        """Return a new random UUID (version 4) in text form."""
        bits = self.stream("uid").getrandbits(128) & _UUID_RANDOM | _UUID_VERSION_4
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def name_suffix(self, length: int = 5) -> str:
        """Return the random tail of a generated name. Mirrors apimachinery's util/rand.String."""
        pick = self.stream("name").choice
        return "".join(pick(_NAME_ALPHABET) for _ in range(length))
