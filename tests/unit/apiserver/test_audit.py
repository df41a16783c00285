"""The audit log: what a policy wants told is told, in upstream's events, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from access import Access, HeaderAuthenticator
from api_exchange import ADDRESS, Api, config_map
from webhook_world import FakeWebhooks, allow, patching, webhook

from korch.api.gvk import CONFIG_MAPS
from korch.apiserver.audit.auditor import Auditor
from korch.apiserver.audit.log_file import LogFile, LogOptions
from korch.apiserver.audit.policy import BadPolicy, Policy, load
from korch.apiserver.authz.chain import Chain
from korch.apiserver.authz.rbac import Rbac, SuperUsers
from korch.apiserver.grants import ASK_HEADER, GRANT_HEADER
from korch.apiserver.identity import User
from korch.apiserver.request_info import parse
from korch.apiserver.server import ApiServer, ServerConfig
from korch.resources import catalogue
from korch.runtime.context import simulated
from korch.storage import Storage
from korch.testing.loop import SimLoop

Object = dict[str, Any]


class Audited(Access):
    """A server under an audit policy; `events` are those that were told."""

    def __init__(self, api: Api, rbac: Rbac, events: list[Object]) -> None:
        super().__init__(api, rbac)
        self._events = events

    def told(self, stage: str = "ResponseComplete") -> list[Object]:
        """Return the events of a stage since the last time, oldest first, and forget all."""
        found = [one for one in self._events if one["stage"] == stage]
        self._events.clear()
        return found


def audited(policy: Object, story: Any) -> None:
    async def main() -> None:
        runtime = simulated(1)
        storage = Storage.open(None, runtime)
        events: list[Object] = []
        rbac = Rbac(storage)
        config = ServerConfig(
            advertise_host=ADDRESS,
            authenticator=HeaderAuthenticator(),
            authorizer=Chain([SuperUsers(), rbac]),
            rbac=rbac,
            auditor=Auditor(Policy(policy), events.append, runtime.clock),
        )
        server = ApiServer(runtime, storage, catalogue(), config)
        running = asyncio.get_running_loop().create_task(server.run())
        await asyncio.sleep(1)
        access = Audited(Api(server, storage), rbac, events)
        await access.namespace()
        events.clear()
        await story(access)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await storage.close()

    loop = SimLoop()
    loop.run(main())
    assert loop.errors == []


def policy(*rules: Object, **more: Any) -> Object:
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more}


def test_an_event_tells_who_asked_what_and_what_came_of_it() -> None:
    async def story(access: Audited) -> None:
        body = config_map("a", x="1")
        await access.admin.call(
            "POST", "/api/v1/namespaces/d/configmaps", body, fieldManager="me", headers={"user-agent": "test/1", "audit-id": "my-id"}
        )
        (received, complete) = access._events
        assert [received["stage"], complete["stage"]] == ["RequestReceived", "ResponseComplete"]
        assert list(complete) == [
            "kind", "apiVersion", "level", "auditID", "stage", "requestURI", "verb", "user", "sourceIPs", "userAgent", "objectRef",
            "responseStatus", "requestReceivedTimestamp", "stageTimestamp", "annotations",
        ]  # fmt: skip
        wanted = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": "my-id",
            "requestURI": "/api/v1/namespaces/d/configmaps?fieldManager=me",
            "verb": "create",
            "user": {"username": "root", "groups": ["system:masters", "system:authenticated"]},
            "sourceIPs": ["test"],
            "userAgent": "test/1",
            "objectRef": {"resource": "configmaps", "namespace": "d", "name": "a", "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "code": 201},
            "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
        }
        assert {key: complete[key] for key in wanted} == wanted
        assert "responseStatus" not in received and "annotations" not in received
        assert received["requestReceivedTimestamp"] == received["stageTimestamp"] == complete["requestReceivedTimestamp"]

    audited(policy({"level": "Metadata"}), story)


def test_refusals_tell_their_status_and_the_authorizers_reason() -> None:
    async def story(access: Audited) -> None:
        await access.user("jane").get("/api/v1/namespaces/d/secrets/s")
        (event,) = access.told()
        assert event["annotations"] == {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""}
        status = event["responseStatus"]
        assert (status["status"], status["reason"], status["code"]) == ("Failure", "Forbidden", 403)
        assert status["message"].startswith('secrets "s" is forbidden: User "jane" cannot get resource')
        await access.admin.grant("jane", "view")
        access.told()
        await access.user("jane").get("/api/v1/namespaces/d/configmaps")
        (event,) = access.told()
        assert event["annotations"]["authorization.k8s.io/reason"] == (
            'RBAC: allowed by ClusterRoleBinding "view-jane" of ClusterRole "view" to User "jane"'
        )

    audited(policy({"level": "Metadata"}), story)


def test_levels_say_how_much_of_the_objects_is_told() -> None:
    async def story(access: Audited) -> None:
        path = "/api/v1/namespaces/d"
        await access.admin.made(f"{path}/configmaps", config_map("a", x="1"))
        await access.admin.made(f"{path}/secrets", {"metadata": {"name": "s"}})
        await access.admin.call("PATCH", f"{path}/configmaps/a", {"data": {"y": "2"}}, content_type="application/merge-patch+json")
        await access.admin.get(f"{path}/services")
        await access.admin.get("/version")
        made, secret, patched, version = access.told()
        assert (made["level"], secret["level"], patched["level"]) == ("RequestResponse", "Metadata", "Request")
        assert made["requestObject"]["data"] == {"x": "1"} and made["objectRef"]["name"] == "a"
        assert made["responseObject"]["metadata"]["uid"] and "managedFields" not in made["responseObject"]["metadata"]
        assert "requestObject" not in secret and "responseObject" not in secret
        assert patched["requestObject"] == {"data": {"y": "2"}} and "responseObject" not in patched
        assert (version["requestURI"], version["verb"], "objectRef" in version) == ("/version", "get", False)

    audited(
        policy(
            {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}]},
            {"level": "RequestResponse", "verbs": ["create"], "namespaces": ["d"], "omitManagedFields": True},
            {"level": "Request", "verbs": ["patch"]},
            {"level": "Metadata", "nonResourceURLs": ["/version", "/healthz*"]},
            omitStages=["RequestReceived"],
        ),
        story,
    )


def test_a_watch_is_told_when_it_begins_and_when_it_ends() -> None:
    async def story(access: Audited) -> None:
        stream = access.api._open("GET", "/api/v1/configmaps", None, "", "", {"x-user": "root|system:masters"}, {"watch": "1"})
        await stream.started.wait()
        assert [(one["stage"], one["verb"]) for one in access._events] == [("RequestReceived", "watch"), ("ResponseStarted", "watch")]
        await stream.leave()
        assert access._events[-1]["stage"] == "ResponseComplete"
        assert access._events[-1]["responseStatus"] == {"metadata": {}, "code": 200}

    audited(policy({"level": "RequestResponse"}), story)


def test_impersonation_shows_both_identities() -> None:
    async def story(access: Audited) -> None:
        await access.admin.call("GET", "/api/v1/nodes", headers={"impersonate-user": "jane"})
        (event,) = access.told()
        assert (event["user"]["username"], event["impersonatedUser"]) == (
            "root",
            {"username": "jane", "groups": ["system:authenticated"]},
        )

    audited(policy({"level": "Metadata"}), story)


def test_what_admission_did_is_annotated() -> None:
    async def story(access: Audited) -> None:
        await configure_as(access)
        await access.admin.made("/api/v1/namespaces/d/configmaps", config_map("a", x="1"))
        event = next(one for one in access.told() if one["objectRef"]["resource"] == "configmaps")
        prefix = "webhook.admission.k8s.io/round_0_index_"
        assert event["annotations"][f"mutation.{prefix}0"] == '{"configuration":"c","webhook":"first.example.com","mutated":true}'
        assert event["annotations"][f"mutation.{prefix}1"] == '{"configuration":"c","webhook":"second.example.com","mutated":false}'
        assert event["annotations"][f"patch.{prefix}0"] == (
            '{"configuration":"c","webhook":"first.example.com","patch":[{"op":"add","path":"/data/y","value":"2"}],"patchType":"JSONPatch"}'
        )
        assert event["annotations"]["first.example.com/why"] == "because"

    async def configure_as(access: Audited) -> None:
        told = patching({"op": "add", "path": "/data/y", "value": "2"})
        FakeWebhooks(access.api, first=lambda request: told(request) | {"auditAnnotations": {"why": "because"}}, second=allow)
        webhooks = [webhook("first"), webhook("second")]
        configuration = {"metadata": {"name": "c"}, "webhooks": webhooks}
        await access.admin.made("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", configuration)

    audited(policy({"level": "Request"}), story)


def test_what_the_server_does_by_itself_is_told_under_its_own_name() -> None:
    async def story(access: Audited) -> None:
        client = access.api.server.client(User("system:kube-controller-manager", groups=("system:authenticated",)))
        await client.create(CONFIG_MAPS, config_map("mine"), namespace="d")
        (event,) = access.told()
        assert (event["user"]["username"], event["verb"], event["objectRef"]["name"]) == (
            "system:kube-controller-manager",
            "create",
            "mine",
        )
        assert (event["requestURI"], event["responseStatus"]["code"]) == ("/api/v1/namespaces/d/configmaps", 201)

    audited(policy({"level": "Request", "verbs": ["create"]}), story)


@pytest.mark.parametrize(
    ("rules", "is_granted"),
    [
        ([{"level": "Metadata", "verbs": ["create"]}], True),
        ([{"level": "None", "users": ["root"]}, {"level": "Metadata"}], True),
        ([{"level": "Metadata", "namespaces": ["elsewhere"]}], False),
        ([{"level": "Metadata"}], False),
    ],
)
def test_reads_that_are_told_of_are_never_left_to_the_front_door(rules: list[Object], is_granted: bool) -> None:
    async def story(access: Audited) -> None:
        answer = await access.admin.call("GET", "/api/v1/namespaces/d/configmaps", headers={ASK_HEADER: "1"})
        assert (answer.header(GRANT_HEADER) != "") == is_granted

    audited(policy(*rules), story)


@pytest.mark.parametrize(
    ("method", "path", "level"),
    [
        ("GET", "/api/v1/namespaces/d/pods/p/log", "Request"),
        ("GET", "/api/v1/namespaces/d/pods/p/status", "Metadata"),
        ("GET", "/api/v1/namespaces/d/configmaps/special", "RequestResponse"),
        ("GET", "/api/v1/namespaces/d/configmaps/other", "None"),
        ("GET", "/apis/apps/v1/namespaces/d/deployments/x/scale", "Metadata"),
        ("GET", "/logs/x", "Metadata"),
    ],
)
def test_the_first_rule_that_matches_decides(method: str, path: str, level: str) -> None:
    rules = policy(
        {"level": "Request", "resources": [{"group": "", "resources": ["pods/log"]}]},
        {"level": "Metadata", "resources": [{"group": "", "resources": ["pods/*"]}, {"group": "apps", "resources": ["*/scale"]}]},
        {"level": "RequestResponse", "resources": [{"group": "", "resources": ["configmaps"], "resourceNames": ["special"]}]},
        {"level": "Metadata", "nonResourceURLs": ["/logs/*"]},
    )
    assert Policy(rules).decide(User("u"), parse(method, path, {})).level.word == level


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "failed decoding: expected audit.k8s.io/v1, Kind=Policy, got no object"),
        ("apiVersion: audit.k8s.io/v1\nkind: Policy\n", "loaded illegal policy with 0 rules from file"),
        ("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]\n", "got audit.k8s.io/v1beta1, Kind=Policy"),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Loud}]\n",
            'rules[0].level: Unsupported value: "Loud": supported values: "Metadata", "None", "Request", "RequestResponse"',
        ),
        (
            'apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: ["a*b"], namespaces: [d], who: me}]\n',
            'rules[0].who: unknown field "who"|rules cannot apply to both regular resources and non-resource URLs',
        ),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [Late]\nrules: [{level: None}]\n",
            'omitStages[0]: Unsupported value: "Late": supported values: "Panic", "RequestReceived", "ResponseComplete", "ResponseStarted"',
        ),
    ],
)
def test_a_bad_policy_says_what_is_wrong_with_it(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(BadPolicy) as caught:
        load(file)
    for part in says.split("|"):
        assert part in str(caught.value)
    assert str(file) in str(caught.value)


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def test_a_disk_that_takes_no_more_is_told_of_and_stops_no_request(caplog: pytest.LogCaptureFixture) -> None:
    log = LogFile(LogOptions(path="/dev/full"), Clock())
    log.write({"auditID": "a-1"})
    log.close()
    assert "an audit event could not be written audit_id=a-1 error=[Errno 28] No space left on device" in caplog.text


def test_the_log_begins_anew_when_it_is_large_and_forgets_what_is_old(tmp_path: Path) -> None:
    clock = Clock()
    log = LogFile(LogOptions(path=str(tmp_path / "audit.log"), max_age_days=2, max_parts=3, max_size_mb=1), clock)
    event = {"filler": "x" * 400_000}
    for _ in range(3):
        log.write(event)
    parts = sorted(one.name for one in tmp_path.iterdir())
    assert parts == ["audit-2027-01-15T08-00-00.000.log", "audit.log"]
    assert (tmp_path / parts[0]).read_text().count("\n") == 2
    for _ in range(12):
        clock.time += 3600
        log.write(event)
    assert len(list(tmp_path.glob("audit-*.log"))) == 3
    clock.time += 3 * 24 * 3600
    for _ in range(3):
        log.write(event)
    assert len(list(tmp_path.glob("audit-*.log"))) == 1
    log.close()
    LogFile(LogOptions(path=str(tmp_path / "audit.log")), clock).close()
