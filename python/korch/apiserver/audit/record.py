"""What is told of one request: an Event for each of its stages, as audit.k8s.io/v1 writes them.

A `Record` exists only for requests that the policy tells of, and hangs on the exchange that carries the request; where there is
none, nothing of this costs anything. What happens deep below (a webhook's patch, a policy's refusal) reaches it through `annotate`,
which finds the record of the running request by itself. Mirrors apiserver's pkg/audit/request.go and pkg/endpoints/filters/audit.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import orjson
import yaml

from korch.api.errors import ApiError
from korch.apiserver.audit.policy import API_VERSION, COMPLETE, PANIC, RECEIVED, STARTED, Decision, Level
from korch.apiserver.body import to_json
from korch.apiserver.identity import User, Verdict, user_info
from korch.apiserver.request_info import RequestInfo
from korch.runtime.clock import Clock, rfc3339_micro

Object = dict[str, Any]
# Takes one event.
Sink = Callable[[Object], None]

_USER_AGENT_MAX = 1024
_current: ContextVar[Record | None] = ContextVar("audit-record", default=None)


def annotate(key: str, value: str, *, at_least: Level = Level.METADATA) -> None:
    """Add an annotation to the event of the running request, if so much is told of it. The first value of a key stays."""
    record = _current.get()
    if record is not None and record.decision.level >= at_least:
        record.annotations.setdefault(key, value)


class Record:
    """The events of one request. Call `received`, then `started` (of long-running ones), then `complete` or `panicked`."""

    def __init__(
        self,
        decision: Decision,
        sink: Sink,
        clock: Clock,
        *,
        audit_id: str,
        uri: str,
        info: RequestInfo,
        user: User | None,
    ) -> None:
        self.decision = decision
        self.annotations: dict[str, str] = {}
        self.acts_as: User | None = None
        self.source_ips: Sequence[str] = ()
        self.user_agent = ""
        self._sink = sink
        self._clock = clock
        self._received_at = clock.now()
        self._audit_id = audit_id
        self._uri = uri
        self._info = info
        self._user = user
        self._request: Any = None
        self._response: Any = None
        self._status: Object | None = None
        self._name = info.name
        self._is_over = False

    def enter(self) -> None:
        """Make this the record that `annotate` finds, in the running task and those that it starts."""
        _current.set(self)

    def leave(self) -> None:
        """Let nobody find it any more: the running task goes on to something else."""
        _current.set(None)

    def authorized(self, verdict: Verdict) -> None:
        """Note the authorizer's answer."""
        self.annotations["authorization.k8s.io/decision"] = "allow" if verdict.is_allowed else "forbid"
        self.annotations["authorization.k8s.io/reason"] = verdict.reason

    def request_body(self, body: bytes, media: str = "") -> None:
        """Note what was posted, of this media type; from level Request on it is told, and always what a new object is called."""
        needs_name = not self._name and self._info.verb == "create"
        if not body or not self._info.is_resource or (self.decision.level < Level.REQUEST and not needs_name):
            return
        try:
            posted = _parsed(to_json(body, media))
        except ApiError:
            # A patch, or what nobody can read; the answer says so.
            posted = _parsed(body)
        if needs_name and isinstance(posted, dict):
            self._name = (posted.get("metadata") or {}).get("name") or ""
        if self.decision.level >= Level.REQUEST:
            self._request = self._shown(posted)

    def response_body(self, body: bytes) -> None:
        """Note what is answered, before it is compressed. Of a Status the event always tells what it says."""
        is_status = body.startswith(b'{"kind":"Status"')
        if not is_status and (self.decision.level < Level.REQUEST_RESPONSE or not self._info.is_resource):
            return
        answer = _parsed(body)
        if is_status and isinstance(answer, dict):
            fields = ("status", "message", "reason", "details", "code")
            self._status = {"metadata": {}, **{key: answer[key] for key in fields if key in answer}}
        if self.decision.level >= Level.REQUEST_RESPONSE and self._info.is_resource:
            self._response = self._shown(answer)

    def received(self) -> None:
        """Tell that the request is here."""
        self._tell(RECEIVED, at=self._received_at)

    def started(self, code: int) -> None:
        """Tell that a long-running answer has begun."""
        self._tell(STARTED, code=code)

    def refused(self, code: int, message: str) -> None:
        """Tell of a request that was ended before it was known who had sent it."""
        self._status = {"metadata": {}, "status": "Failure", "message": message, "reason": "Unauthorized", "code": code}
        self._is_over = True
        self._tell(STARTED, code=code)

    def complete(self, code: int) -> None:
        """Tell that the answer is out, or that the client has gone (`code` 0)."""
        if not self._is_over:
            self._is_over = True
            self._tell(COMPLETE, code=code)

    def panicked(self) -> None:
        """Tell that a mistake of the server's ended the request."""
        if not self._is_over:
            self._is_over = True
            self._tell(PANIC, code=500)

    def _tell(self, stage: str, *, code: int | None = None, at: float | None = None) -> None:
        if stage in self.decision.omitted_stages:
            return
        info = self._info
        event: Object = {
            "kind": "Event",
            "apiVersion": API_VERSION,
            "level": self.decision.level.word,
            "auditID": self._audit_id,
            "stage": stage,
            "requestURI": self._uri,
            "verb": info.verb,
            "user": user_info(self._user) if self._user is not None else {},
        }
        if self.acts_as is not None:
            event["impersonatedUser"] = user_info(self.acts_as)
        if self.source_ips:
            event["sourceIPs"] = list(self.source_ips)
        if self.user_agent:
            event["userAgent"] = _short(self.user_agent)
        if info.is_resource:
            event["objectRef"] = self._reference()
        if code is not None:
            event["responseStatus"] = self._response_status(code, stage)
        if stage != RECEIVED:
            event |= {key: one for key, one in (("requestObject", self._request), ("responseObject", self._response)) if one is not None}
        event["requestReceivedTimestamp"] = rfc3339_micro(self._received_at)
        event["stageTimestamp"] = rfc3339_micro(self._clock.now() if at is None else at)
        if self.annotations and stage != RECEIVED:
            event["annotations"] = dict(sorted(self.annotations.items()))
        self._sink(event)

    def _response_status(self, code: int, stage: str) -> Object:
        if self._status is not None:
            return self._status
        if stage == COMPLETE and code == 0:
            return {"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200}
        return {"metadata": {}, "code": code}

    def _reference(self) -> Object:
        info = self._info
        reference = {
            "resource": info.resource,
            "namespace": info.namespace,
            "name": self._name,
            "apiGroup": info.group,
            "apiVersion": info.version,
            "subresource": info.subresource,
        }
        return {key: value for key, value in reference.items() if value}

    def _shown(self, obj: Any) -> Any:
        if self.decision.omits_managed_fields and isinstance(obj, dict):
            for one in (obj, *(obj.get("items") or ())):
                if isinstance(one, dict) and isinstance(one.get("metadata"), dict):
                    one["metadata"].pop("managedFields", None)
        return obj


def uri_of(scope: Mapping[str, Any]) -> str:
    """Return the request's target as the client wrote it."""
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    query = (scope.get("query_string") or b"").decode("latin-1")
    return f"{path}?{query}" if query else path


def source_ips_of(scope: Mapping[str, Any], headers: Mapping[str, str]) -> list[str]:
    """Return the addresses that a request is said to come from, the connection's last."""
    told = [one.strip() for one in headers.get("x-forwarded-for", "").split(",") if one.strip()]
    client = scope.get("client")
    return told or ([str(client[0])] if client and client[0] else [])


def _short(user_agent: str) -> str:
    return user_agent if len(user_agent) <= _USER_AGENT_MAX else f"{user_agent[:_USER_AGENT_MAX]}...TRUNCATED"


def _parsed(body: bytes) -> Any:
    """Return a document that has already been read once; one that nobody could read is told as text."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return yaml.safe_load(body)
    except (yaml.YAMLError, UnicodeDecodeError):
        return body.decode("utf-8", "replace")
