"""An API server that asks who may do what: the user comes in a header, everything else is as `korch server` wires it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from api_exchange import ADDRESS, Answer, Api

from korch.apiserver.authn.authenticator import ANONYMOUS
from korch.apiserver.authz.chain import Chain
from korch.apiserver.authz.node import NodeAuthorizer
from korch.apiserver.authz.rbac import Rbac, SuperUsers
from korch.apiserver.identity import User
from korch.apiserver.server import ApiServer, ServerConfig
from korch.resources import catalogue
from korch.runtime.context import simulated
from korch.storage import Storage
from korch.testing.loop import SimLoop

Object = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"


class HeaderAuthenticator:
    """Believes the header `x-user`: NAME[|GROUP...]; every named user is authenticated."""

    def authenticate(self, headers: Mapping[str, str]) -> User:
        name, *groups = headers.get("x-user", "").split("|")
        return User(name, groups=(*groups, "system:authenticated")) if name else ANONYMOUS


class As:
    """The API as one user sees it."""

    def __init__(self, api: Api, user: str) -> None:
        self._api = api
        self._headers = {"x-user": user} if user else {}

    async def call(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, **options: Any) -> Answer:
        return await self._api.call(method, path, body, headers=self._headers | (headers or {}), **options)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def post(self, path: str, body: Any, **options: Any) -> Answer:
        return await self.call("POST", path, body, **options)

    async def made(self, path: str, body: Object) -> Object:
        answer = await self.post(path, body)
        assert answer.code == 201, answer.body
        return answer.json

    async def grant(self, who: str, role: str, *rules: Object, namespace: str = "", kind: str = "User") -> None:
        """Make a role of `rules` (none: `role` exists) and bind it to `who`."""
        where = f"{RBAC}/namespaces/{namespace}/" if namespace else f"{RBAC}/cluster"
        role_kind = "Role" if namespace and rules else "ClusterRole"
        if rules:
            await self.made(f"{where}roles", {"metadata": {"name": role}, "rules": list(rules)})
        subject = {"kind": kind, "name": who}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role}
        await self.made(f"{where}rolebindings", {"metadata": {"name": f"{role}-{who}"}, "subjects": [subject], "roleRef": reference})


class Access:
    """A server and its users."""

    def __init__(self, api: Api, rbac: Rbac) -> None:
        self.api = api
        self.rbac = rbac
        self.admin = As(api, "root|system:masters")

    def user(self, name: str) -> As:
        return As(self.api, name)

    async def namespace(self, name: str = "d") -> str:
        await self.admin.made("/api/v1/namespaces", {"metadata": {"name": name}})
        await self.admin.made(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        return f"/api/v1/namespaces/{name}"


def with_access(story: Callable[[Access], Awaitable[None]]) -> Callable[[], None]:
    """Make a test of a story that runs against a new server with RBAC."""

    async def main() -> None:
        runtime = simulated(1)
        storage = Storage.open(None, runtime)
        rbac = Rbac(storage)
        chain = Chain([SuperUsers(), NodeAuthorizer(storage), rbac])
        config = ServerConfig(advertise_host=ADDRESS, authenticator=HeaderAuthenticator(), authorizer=chain, rbac=rbac)
        server = ApiServer(runtime, storage, catalogue(), config)
        running = asyncio.get_running_loop().create_task(server.run())
        await asyncio.sleep(1)
        assert server.health.problems() == []
        await story(Access(Api(server, storage), rbac))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await storage.close()

    def test() -> None:
        loop = SimLoop()
        loop.run(main())
        assert loop.errors == []

    test.__doc__ = story.__doc__
    return test
