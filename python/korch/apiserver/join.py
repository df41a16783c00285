"""`/korch/v1/ca` and `/korch/v1/join`: how a machine that has only a URL and a token becomes a member.

The join token lets its bearer ask for exactly one thing: certificates for a node or a control-plane component, under names
that the server chooses. `korch.client.join` is the other end.
"""

from __future__ import annotations

import ipaddress

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from korch.api.errors import ApiError, BadRequest, Forbidden
from korch.api.names import is_dns_subdomain
from korch.apiserver.certificates import CertificateAuthority
from korch.apiserver.identity import Authenticator

_USERS = {
    "node": ("system:node:{name}", ("system:nodes",)),
    "scheduler": ("system:kube-scheduler", ()),
    "controller-manager": ("system:kube-controller-manager", ()),
}


class JoinRequest(msgspec.Struct, frozen=True, rename="camel"):
    """The body of a join: `ips` are the addresses at which the agent will serve; the requests are PEM signing requests."""

    role: str
    name: str
    client_request: str
    serving_request: str
    ips: list[str] = []


def join_routes(authority: CertificateAuthority, authenticator: Authenticator) -> list[Route]:
    """Return the two routes, to be mounted before the resource route."""

    async def show_authority(_request: Request) -> Response:
        return PlainTextResponse(authority.certificate_pem)

    async def join(request: Request) -> Response:
        try:
            user = authenticator.authenticate({name.lower(): value for name, value in request.headers.items()})
            if not {"system:bootstrappers", "system:masters"} & set(user.groups):
                raise Forbidden("", "join", "", f'User "{user.name}" may not join machines to the cluster')
            body = msgspec.json.decode(await request.body(), type=JoinRequest)
            return JSONResponse(await run_in_threadpool(issue_for, authority, body))
        except msgspec.DecodeError as error:
            refused: ApiError = BadRequest(f"join: {error}")
        except ApiError as error:
            refused = error
        return JSONResponse(refused.status(), status_code=refused.code, headers=refused.headers)

    return [Route("/korch/v1/ca", show_authority, methods=["GET"]), Route("/korch/v1/join", join, methods=["POST"])]


def issue_for(authority: CertificateAuthority, body: JoinRequest) -> dict[str, str]:
    """Return signed certificates for a joiner. Raises BadRequest for a role, name, address or signing request that is no good."""
    if body.role not in _USERS:
        raise BadRequest(f"join: unknown role {body.role!r}: expected one of {', '.join(sorted(_USERS))}")
    if is_dns_subdomain(body.name):
        raise BadRequest(f"join: {body.name!r} is not a DNS-1123 subdomain")
    pattern, groups = _USERS[body.role]
    user = pattern.format(name=body.name)
    try:
        hosts = [str(ipaddress.ip_address(one)) for one in body.ips]
        client = authority.sign_request(body.client_request.encode(), user, organizations=groups)
        serving = authority.sign_request(
            body.serving_request.encode(), user, organizations=groups, hosts=[body.name, *hosts], is_server=True
        )
    except ValueError as error:
        raise BadRequest(f"join: {error}") from error
    return {"user": user, "clientCertificate": client.decode(), "servingCertificate": serving.decode()}
