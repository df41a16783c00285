"""Short hashes for names and labels: FNV-1a in 32 bits, spelled with the alphabet of generated names.

Mirrors the pair that upstream uses for pod-template-hash and controller-revision-hash (hash/fnv and util/rand.SafeEncodeString).
"""

from __future__ import annotations

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def fnv32a(data: bytes) -> int:
    """Return the 32-bit FNV-1a hash of `data`."""
    state = 0x811C9DC5
    for byte in data:
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    return state


def safe_encode(text: str) -> str:
    """Return `text` letter by letter in an alphabet without vowels, so that no word arises by chance."""
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in text.encode())
