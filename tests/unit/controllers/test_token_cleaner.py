"""Bootstrap tokens go when their time is over, and not before; other secrets stay."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from tests.unit.controllers.conftest import World, simulate

from korch.api.gvk import SECRETS
from korch.controllers.token_cleaner import TokenCleaner
from korch.runtime.clock import rfc3339

Object = dict[str, Any]


def test_a_token_is_deleted_at_its_end() -> None:
    async def story(world: World) -> None:
        now = world.runtime.clock.now()

        async def make(name: str, expiration: str, kind: str = "bootstrap.kubernetes.io/token", namespace: str = "kube-system") -> None:
            data = {"expiration": base64.b64encode(expiration.encode()).decode()}
            await world.make(SECRETS, {"metadata": {"name": name}, "type": kind, "data": data}, namespace)

        await make("soon", rfc3339(now + 100))
        await make("later", rfc3339(now + 1000))
        await make("over", rfc3339(now - 5))
        await make("never", "")
        await make("odd", "tomorrow")
        await make("opaque", rfc3339(now - 5), "Opaque")
        await make("elsewhere", rfc3339(now - 5), namespace="default")

        async def names() -> list[str]:
            return sorted(one["metadata"]["name"] for one in await world.all(SECRETS))

        async with world.running(TokenCleaner(world.client, world.informers, world.runtime)):
            await asyncio.sleep(90)
            assert await names() == ["elsewhere", "later", "never", "odd", "opaque", "soon"]
            await asyncio.sleep(11)
            assert await names() == ["elsewhere", "later", "never", "odd", "opaque"]
            await asyncio.sleep(1000)
            assert await names() == ["elsewhere", "never", "odd", "opaque"]

    simulate(story)
