"""Which requests are told of: the policy and the log of one server, as the request chain sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from korch.apiserver.audit.policy import Level, Policy
from korch.apiserver.audit.record import Record, Sink, source_ips_of, uri_of
from korch.apiserver.identity import User
from korch.apiserver.request_info import RequestInfo
from korch.runtime.clock import Clock

_METHODS = (("x-korch-client-cert", "x509"), ("authorization", "bearer"))


class Auditor:
    """Begins the records of requests."""

    def __init__(self, policy: Policy, sink: Sink, clock: Clock) -> None:
        self.policy = policy
        self._sink = sink
        self._clock = clock

    def begin(
        self, scope: Mapping[str, Any], headers: Mapping[str, str], info: RequestInfo, user: User | None, *, audit_id: str
    ) -> Record | None:
        """Return the record of a request, None when nothing is told of it."""
        decision = self.policy.decide(user, info)
        if decision.level is Level.NONE:
            return None
        record = Record(decision, self._sink, self._clock, audit_id=audit_id, uri=uri_of(scope), info=info, user=user)
        record.source_ips = source_ips_of(scope, headers)
        record.user_agent = headers.get("user-agent", "")
        return record

    def begin_within(self, verb_info: RequestInfo, user: User, *, audit_id: str) -> Record | None:
        """Return the record of something that this process asks of itself."""
        decision = self.policy.decide(user, verb_info)
        if decision.level is Level.NONE:
            return None
        return Record(decision, self._sink, self._clock, audit_id=audit_id, uri=verb_info.path, info=verb_info, user=user)

    def unauthenticated(self, scope: Mapping[str, Any], headers: Mapping[str, str], info: RequestInfo, *, audit_id: str) -> None:
        """Tell of a request whose sender could not prove who he is."""
        record = self.begin(scope, headers, info, None, audit_id=audit_id)
        if record is not None:
            tried = ", ".join(word for header, word in _METHODS if headers.get(header))
            record.refused(401, f"Authentication failed, attempted: {tried}" if tried else "Authentication failed, no credentials provided")

    def may_tell(self, user: User, info: RequestInfo) -> bool:
        """Whether reads like this one have to pass here, because they are told of."""
        return self.policy.may_tell(user, info)
