"""The Python face of the store: durable commits, consistent reads, watches that wake asyncio tasks."""

from korch.storage.store import Storage
from korch.storage.watch import Watch

__all__ = ["Storage", "Watch"]
