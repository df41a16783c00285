"""The verbs when several servers share one store, so that a client need not know which of them it speaks to.

A read first waits until this server shows what any server had answered before. A write starts from what is here, because
the store's own conditions decide; only when it is refused may the reason lie in what this server has not seen yet, and then it is
made once more on the newest state. kube-apiserver does the same with its watch cache and etcd (GuaranteedUpdate's origStateIsCurrent).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from korch.api.errors import ApiError
from korch.apiserver.allocation import RangeFull
from korch.apiserver.dispatch import Dispatch
from korch.apiserver.identity import User
from korch.apiserver.ledger import AllocationLost
from korch.apiserver.options import ReadOptions, RemovalOptions, WriteOptions
from korch.apiserver.pipeline import Outcome, Target
from korch.client.protocol import PodBinding

T = TypeVar("T")

# How long a read waits for a revision that this server has not reached; upstream's watch cache waits as long.
_REACH_S = 3.0
_ALLOCATION_TRIES = 10


class SharedDispatch(Dispatch):
    """`Dispatch` on a shared store."""

    async def see(self, options: ReadOptions | None = None) -> None:
        """Return when this server shows what a read with `options` may not miss. Raises ApiError when the store does not answer."""
        storage = self.pipeline.records.storage
        version = options.resource_version if options is not None and not options.continue_token else ""
        if version == "0" and not (options and options.sends_initial_events):
            return
        if not version.isdigit() or version == "0":
            await storage.caught_up()
            return
        try:
            await storage.reached(int(version), _REACH_S)
        except ApiError as error:
            # The read itself says that the version is too large, in upstream's words.
            if error.code != 504:
                raise

    async def create(self, target: Target, body: bytes, options: WriteOptions) -> Outcome:
        """Create an object, or post to a subresource."""
        return await self._settled(lambda: super(SharedDispatch, self).create(target, body, options))

    async def bind_pods(self, user: User, bindings: Sequence[PodBinding], options: WriteOptions) -> list[ApiError | None]:
        """Post the Bindings of many pods; return what each would have raised."""
        await self.see()
        return await super().bind_pods(user, bindings, options)

    async def update(self, target: Target, body: bytes, options: WriteOptions) -> Outcome:
        """Replace an object, or a part of it through a subresource."""
        return await self._settled(lambda: super(SharedDispatch, self).update(target, body, options))

    async def patch(self, target: Target, patch: bytes, patch_type: str, options: WriteOptions) -> Outcome:
        """Patch an object, or a part of it through a subresource."""
        return await self._settled(lambda: super(SharedDispatch, self).patch(target, patch, patch_type, options))

    async def delete(self, target: Target, options: RemovalOptions) -> Outcome:
        """Delete one object, or begin to."""
        return await self._settled(lambda: super(SharedDispatch, self).delete(target, options))

    async def delete_collection(self, target: Target, options: ReadOptions, removal: RemovalOptions) -> Outcome:
        """Delete all that match; answer the list of what was deleted."""
        await self.see(options)
        return await super().delete_collection(target, options, removal)

    async def _settled(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what `attempt` gives, on the newest state when it was refused on an older one."""
        storage = self.pipeline.records.storage
        before = storage.revision()
        for _ in range(_ALLOCATION_TRIES):
            try:
                return await attempt()
            except AllocationLost:
                await storage.caught_up()
            except ApiError as error:
                if not (400 <= error.code < 500 or isinstance(error, RangeFull)):
                    raise
                await storage.caught_up()
                if storage.revision() == before:
                    raise
                break
        return await attempt()
