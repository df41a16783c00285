"""What stands before every request: who asks, is he told of, may others go first, may he.

`Guards.admit` asks in upstream's order (authentication, audit, impersonation, flow control, authorization) and returns the identity under
which the request goes on. What is not configured (no audit policy, no flow control, no remote authenticator) is not there and
costs nothing. Mirrors the handler chain of apiserver's pkg/server/config.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from korch.api.errors import BadRequest, Unauthorized
from korch.api.go_duration import parse_duration
from korch.apiserver.audit.auditor import Auditor
from korch.apiserver.authn.impersonation import impersonated
from korch.apiserver.exchange import Exchange
from korch.apiserver.flowcontrol.flow_control import FlowControl
from korch.apiserver.identity import Authenticator, Authorizer, User, forbidden
from korch.apiserver.request_info import RequestInfo
from korch.apiserver.selection import selected_name

REQUEST_TIMEOUT_S_DEFAULT = 60.0
_LONG_RUNNING = ("log", "exec", "attach", "portforward", "proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """`resolve` awaits what an authenticator has to ask others about the credentials in some headers, before it is asked itself.
    `request_timeout_s` bounds requests that are not long-running."""

    authenticator: Authenticator
    authorizer: Authorizer
    auditor: Auditor | None = None
    flow: FlowControl | None = None
    resolve: Callable[[Mapping[str, str]], Awaitable[None]] | None = None
    request_timeout_s: float = REQUEST_TIMEOUT_S_DEFAULT

    async def admit(self, exchange: Exchange, scope: Mapping[str, Any]) -> User:
        """Return who asks, or whom he may act as. Raises Unauthorized, Forbidden, BadRequest, TooManyRequests.

        What is to be released at the end (`exchange.seat`) and told at the end (`exchange.record`) is then with the exchange.
        """
        headers, info = exchange.headers, exchange.info
        if self.resolve is not None:
            await self.resolve(headers)
        try:
            user = self.authenticator.authenticate(headers)
        except Unauthorized:
            if self.auditor is not None:
                self.auditor.unauthenticated(scope, headers, info, audit_id=exchange.audit_id)
            raise
        record = None
        if self.auditor is not None:
            record = exchange.record = self.auditor.begin(scope, headers, info, user, audit_id=exchange.audit_id)
            if record is not None:
                record.enter()
                record.received()
        if any(name.startswith("impersonate-") for name in headers):
            acting = impersonated(user, scope["headers"], self.authorizer)
            if record is not None and acting is not user:
                record.acts_as = acting
            user = acting
        exchange.user = user
        if self.flow is not None and (info.verb == "watch" or not is_long_running(info)):
            exchange.seat = await self.flow.enter(user, info, exchange.query)
            exchange.marks = exchange.seat.headers
        if info.field_selector and not info.name and (name := selected_name(info.field_selector)):
            # Rules that name objects hold for lists of one object too.
            info = replace(info, name=name)
        verdict = self.authorizer.authorize(user, info)
        if record is not None:
            record.authorized(verdict)
        if not verdict.is_allowed:
            raise forbidden(user, info, verdict.reason)
        return user

    def budget_s(self, info: RequestInfo, query: Mapping[str, str]) -> float:
        """Return how long a request may take, in seconds; 0 for one that may go on for ever. Raises BadRequest for a bad `timeout`."""
        if is_long_running(info):
            return 0.0
        asked = query.get("timeout")
        if not asked:
            return self.request_timeout_s
        try:
            seconds = parse_duration(asked)
        except ValueError as error:
            raise BadRequest(f"invalid timeout specified in the request URL - {error}") from error
        return min(seconds, self.request_timeout_s) if seconds > 0 else self.request_timeout_s


def is_long_running(info: RequestInfo) -> bool:
    """Whether a request is meant to stay open: watches, logs, and everything that is carried to an agent or a pod."""
    return info.verb in ("watch", "proxy") or info.subresource in _LONG_RUNNING


def late(info: RequestInfo) -> str:
    """Return what a client is told whose request took too long."""
    if info.is_resource and info.verb not in ("get", "list"):
        return "request did not complete within requested timeout - context deadline exceeded"
    return "request did not complete within the allotted timeout"
