"""What admission sees of a connection (exec, attach, port-forward, proxy) and that it may refuse one: webhooks and policies alike."""

from __future__ import annotations

from typing import Any

import pytest
from api_exchange import Api, on_server, pod
from starlette.responses import Response
from webhook_world import GROUP, FakeWebhooks, allow, configure, deny, webhook

Object = dict[str, Any]
CONNECT = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"]}
BINDING = {"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}


def open_for(api: Api) -> list[str]:
    """Let connections be made; return the list of those that were."""
    made: list[str] = []

    async def connector(request: Any, info: Any) -> Response:
        made.append(info.subresource)
        return Response("connected")

    for resource, subresource in (("pods", "exec"), ("pods", "attach"), ("pods", "portforward"), ("pods", "proxy"), ("services", "proxy")):
        api.server.connectors[resource, subresource] = connector
    return made


async def exchange_of(api: Api, path: str, query: str) -> int:
    """Make a request whose parameters repeat."""
    sent: list[Object] = []

    async def receive() -> Object:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Object) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": []}
    await api.app(scope | {"http_version": "1.1", "scheme": "http"}, receive, send)
    return sent[0]["status"]


@on_server
async def test_a_webhook_sees_the_parameters_and_can_refuse(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/pods", pod("p"))
    made = open_for(api)
    hooks = FakeWebhooks(api, gate=allow)
    await configure(
        api, "Validating", webhook("gate", rules=[CONNECT | {"resources": ["pods/exec", "pods/portforward", "services/proxy"]}])
    )
    query = "command=sh&command=-c&command=ls&stdin=true&stdout=1&stderr=false&container=c"
    assert await exchange_of(api, f"{path}/pods/p/exec", query) == 200
    request = hooks.reviews[0][1]
    assert request["object"] == {
        "kind": "PodExecOptions",
        "apiVersion": "v1",
        "stdin": True,
        "stdout": True,
        "stderr": False,
        "container": "c",
        "command": ["sh", "-c", "ls"],
    }
    assert request["kind"] == {"group": "", "version": "v1", "kind": "PodExecOptions"}
    assert request["resource"] == {"group": "", "version": "v1", "resource": "pods"}
    assert (request["operation"], request["subResource"], request["name"], request["namespace"]) == ("CONNECT", "exec", "p", "d")
    assert (request["oldObject"], request["options"]) == (None, None)
    assert await exchange_of(api, f"{path}/pods/p/portforward", "ports=80,90&ports=100") == 200
    assert hooks.reviews[1][1]["object"] == {"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": [80, 90, 100]}
    assert await exchange_of(api, f"{path}/services/s:80/proxy/a/b", "") == 200
    proxied = hooks.reviews[2][1]
    assert (proxied["object"]["kind"], proxied["object"]["path"], proxied["name"]) == ("ServiceProxyOptions", "/a/b", "s:80")
    assert await exchange_of(api, f"{path}/pods/p/attach", "stdin=true") == 200
    assert len(hooks.reviews) == 3 and made == ["exec", "portforward", "proxy", "attach"]
    hooks.answers["gate"] = deny("no shells here", code=403)
    assert await exchange_of(api, f"{path}/pods/p/exec", query) == 403
    assert len(made) == 4


@pytest.mark.parametrize(
    ("expression", "command", "code"),
    [
        ("object.command[0] != 'sh'", "sh", 422),
        ("object.command[0] != 'sh'", "ls", 200),
        ("!object.stdin || object.container == 'c'", "sh", 200),
        ("request.operation == 'CONNECT' && request.subResource == 'exec'", "sh", 200),
        ("request.name != 'p'", "sh", 422),
    ],
)
def test_a_policy_decides_by_the_parameters(expression: str, command: str, code: int) -> None:
    async def story(api: Api) -> None:
        path = await api.namespace()
        await api.made(f"{path}/pods", pod("p"))
        made = open_for(api)
        constraints = {"resourceRules": [CONNECT | {"resources": ["pods/exec"]}]}
        spec = {"matchConstraints": constraints, "validations": [{"expression": expression, "message": "not so"}]}
        await api.made(f"{GROUP}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec})
        await api.made(f"{GROUP}/validatingadmissionpolicybindings", BINDING)
        answer = await api.post(f"{path}/pods/p/exec", None, command=command, stdin="true", container="c")
        assert answer.code == code
        if code == 422:
            assert answer.json["message"].endswith("denied request: not so") and made == []
        else:
            assert made == ["exec"]

    on_server(story)()
