"""Webhooks without a network: a transport that answers by URL, and the configurations that name it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson
from api_exchange import Api

from korch.apiserver.webhook_client import Place

Object = dict[str, Any]
Answer = Callable[[Object], Object]
GROUP = "/apis/admissionregistration.k8s.io/v1"


class FakeWebhooks:
    """Answers by path. What an answer raises, the call raises; `reviews` are all requests, oldest first."""

    def __init__(self, api: Api, **answers: Answer) -> None:
        self.answers = answers
        self.reviews: list[tuple[str, Object]] = []
        self.places: list[Place] = []
        api.server.webhooks.transport = self

    async def post(self, place: Place, body: bytes, *, ca_pem: str, timeout_s: float) -> tuple[int, bytes]:
        review = orjson.loads(body)
        name = place.path.partition("?")[0].strip("/")
        self.reviews.append((name, review["request"]))
        self.places.append(place)
        response = self.answers[name](review["request"])
        return 200, orjson.dumps({**review, "request": None, "response": {"uid": review["request"]["uid"], **response}})

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.reviews]


def allow(_request: Object) -> Object:
    return {"allowed": True}


def deny(message: str = "", **status: Any) -> Answer:
    return lambda _request: {"allowed": False, "status": {"message": message} | status}


def patching(*operations: Object) -> Answer:
    patch = base64.b64encode(orjson.dumps(list(operations))).decode()
    return lambda _request: {"allowed": True, "patchType": "JSONPatch", "patch": patch}


def webhook(path: str, **more: Any) -> Object:
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["configmaps"], "operations": ["*"]}
    return {
        "name": f"{path}.example.com",
        "clientConfig": {"url": f"https://hooks.test/{path}"},
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    } | more


async def configure(api: Api, kind: str, *webhooks: Object, name: str = "c") -> None:
    await api.made(f"{GROUP}/{kind.lower()}webhookconfigurations", {"metadata": {"name": name}, "webhooks": list(webhooks)})
