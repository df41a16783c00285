"""The Python face of the store: durable commits, consistent reads, watches that wake asyncio tasks."""

from korch.storage.etcd import EtcdOptions, EtcdStorage, parse_datastore
from korch.storage.store import Storage
from korch.storage.watch import Watch

__all__ = ["EtcdOptions", "EtcdStorage", "Storage", "Watch", "parse_datastore"]
