"""What `kubectl auth whoami` and `kubectl auth can-i` print, as a file each: the real kubectl against a server on loopback."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from korch.api.gvk import ResourceRef
from korch.apiserver.authn.authenticator import ClusterAuthenticator
from korch.apiserver.authn.bearer import BearerTokens, Identified
from korch.apiserver.authn.bootstrap_tokens import BootstrapTokens
from korch.apiserver.authz.chain import Chain
from korch.apiserver.authz.node import NodeAuthorizer
from korch.apiserver.authz.rbac import Rbac, SuperUsers
from korch.apiserver.certificates import CertificateAuthority
from korch.apiserver.identity import User
from korch.apiserver.server import ApiServer, ServerConfig
from korch.client.protocol import Client
from korch.resources import catalogue
from korch.runtime.context import Runtime
from korch.storage import Storage
from tests.golden import check

KUBECTL = Path(sys.executable).parent / "kubectl"
AUTHENTICATED = "system:authenticated"
USERS = {
    "admin": User("kubernetes-admin", groups=("system:masters", AUTHENTICATED)),
    "jane": User("jane", "jane-uid", ("dev", AUTHENTICATED), {"example.org/team": ("blue", "green")}),
    "robot": User("system:serviceaccount:d:robot", "r-uid", ("system:serviceaccounts", "system:serviceaccounts:d", AUTHENTICATED)),
    "node": User("system:node:n1", groups=("system:nodes", AUTHENTICATED)),
}
BOOTSTRAP = "abcdef.0123456789abcdef"


class NamedTokens:
    """A token is the key of a user above."""

    def identify(self, token: str, audiences: Any) -> Identified | None:
        return Identified(USERS[token], ()) if token in USERS else None

    async def resolve(self, token: str) -> None:
        """Need nothing."""


def bootstrap_secret(_name: str) -> Mapping[str, Any]:
    data = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}
    data["auth-extra-groups"] = "system:bootstrappers:worker"
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"metadata": {"name": "s"}, "type": "bootstrap.kubernetes.io/token", "data": encoded}


async def grant(client: Client) -> None:
    """Give jane and the robot something to list."""
    group = "rbac.authorization.k8s.io"
    rules = [
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
        {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"]},
    ]
    await client.create(ResourceRef("", "v1", "namespaces", "Namespace", namespaced=False), {"metadata": {"name": "d"}})
    role = ResourceRef(group, "v1", "roles", "Role")
    await client.create(role, {"metadata": {"name": "r"}, "rules": rules}, namespace="d")
    subjects = [{"kind": "Group", "name": "dev", "apiGroup": group}, {"kind": "ServiceAccount", "name": "robot", "namespace": "d"}]
    reference = {"apiGroup": group, "kind": "Role", "name": "r"}
    binding = {"metadata": {"name": "b"}, "subjects": subjects, "roleRef": reference}
    await client.create(ResourceRef(group, "v1", "rolebindings", "RoleBinding"), binding, namespace="d")


@asynccontextmanager
async def serving(pki: Path) -> AsyncIterator[str]:
    runtime = Runtime()
    storage = Storage.open(None, runtime)
    rbac = Rbac(storage)
    bearer = BearerTokens([NamedTokens(), BootstrapTokens(bootstrap_secret, runtime.clock, audiences=["api"])], audiences=["api"])
    config = ServerConfig(
        authenticator=ClusterAuthenticator(bearer),
        authorizer=Chain([SuperUsers(), NodeAuthorizer(storage), rbac]),
        rbac=rbac,
        bearer=bearer,
    )
    server = ApiServer(runtime, storage, catalogue(), config)
    CertificateAuthority.open(pki, runtime.clock).issue("server", "server", hosts=["127.0.0.1"], is_server=True)
    # kubectl sends tokens over TLS alone.
    files = {"ssl_certfile": str(pki / "server.crt"), "ssl_keyfile": str(pki / "server.key")}
    http = uvicorn.Server(uvicorn.Config(server.app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=0, **files))
    loop = asyncio.get_running_loop()
    running = [loop.create_task(server.run()), loop.create_task(http.serve())]
    try:
        while not http.started or server.health.problems():
            await asyncio.sleep(0)
        await grant(server.client())
        yield f"https://127.0.0.1:{http.servers[0].sockets[0].getsockname()[1]}"
    finally:
        http.should_exit = True
        running[0].cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await storage.close()


async def kubectl(url: str, token: str, home: Path, *arguments: str) -> str:
    """Return what a command prints, its exit code in front when it is not 0."""
    options = ["--server", url, "--certificate-authority", str(home / "pki" / "ca.crt"), "--token", token]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(home / "none")}
    process = await asyncio.create_subprocess_exec(
        KUBECTL, *arguments, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment
    )
    output, _ = await process.communicate()
    code = f"exit code {process.returncode}\n" if process.returncode else ""
    return code + output.decode()


COMMANDS = (
    ("auth", "whoami"),
    ("auth", "whoami", "-o", "json"),
    ("auth", "can-i", "--list", "-n", "d"),
    ("auth", "can-i", "--list", "-n", "default"),
    ("auth", "can-i", "get", "pods", "-n", "d"),
    ("auth", "can-i", "get", "pods", "--subresource=log", "-n", "d"),
    ("auth", "can-i", "delete", "deployments.apps/web", "-n", "d"),
    ("auth", "can-i", "get", "/metrics"),
    ("auth", "can-i", "list", "nodes"),
)


@pytest.mark.parametrize("user", ["admin", "jane", "robot", "node", "bootstrap"])
async def test_kubectl_auth_prints(user: str, tmp_path: Path) -> None:
    token = BOOTSTRAP if user == "bootstrap" else user
    async with serving(tmp_path / "pki") as url:
        shown = [f"$ kubectl {' '.join(words)}\n{await kubectl(url, token, tmp_path, *words)}" for words in COMMANDS]
    check(f"auth/{user}.txt", "\n".join(shown).replace(url, "URL"))
