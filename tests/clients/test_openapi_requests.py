"""Requests made by schemathesis from the served OpenAPI v3: none makes the server stumble, and answers are what the document says."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.e2e.conftest import Cluster

# Requests for each operation.
EXAMPLES = 4
# A document of OpenAPI v3, and the resource of it whose operations are tried.
SUBSET = (
    ("api/v1", "configmaps"),
    ("api/v1", "secrets"),
    ("api/v1", "serviceaccounts"),
    ("api/v1", "resourcequotas"),
    ("apis/coordination.k8s.io/v1", "leases"),
    ("apis/discovery.k8s.io/v1", "endpointslices"),
    ("apis/networking.k8s.io/v1", "ingresses"),
    ("apis/policy/v1", "poddisruptionbudgets"),
    ("apis/rbac.authorization.k8s.io/v1", "roles"),
    ("apis/scheduling.k8s.io/v1", "priorityclasses"),
)
# What would make an answer endless, or the object of another test.
LEFT_OUT = ("watch", "sendInitialEvents", "timeoutSeconds", "allowWatchBookmarks")


@pytest.fixture(scope="module")
def session(served: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[requests.Session]:
    scratch = tmp_path_factory.mktemp("admin")
    config = yaml.safe_load((served.data_dir / "kubeconfig").read_text())
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    (scratch / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    for part in ("certificate", "key"):
        (scratch / part).write_bytes(base64.b64decode(user[f"client-{part}-data"]))
    with requests.Session() as made:
        made.trust_env = False
        made.verify, made.cert = str(scratch / "ca.crt"), (str(scratch / "certificate"), str(scratch / "key"))
        yield made


def document(served: Cluster, session: requests.Session, path: str, plural: str) -> dict[str, Any]:
    """Return the group's document with the operations of one resource only."""
    whole = session.get(f"https://{served.bind}/openapi/v3/{path}").json()
    is_of = (f"/{plural}", f"/{plural}/{{name}}", f"/{plural}/{{name}}/status")
    paths = {one: item for one, item in whole["paths"].items() if one.endswith(is_of) and "/watch/" not in one}
    for item in paths.values():
        for operation in [item, *(value for value in item.values() if isinstance(value, dict))]:
            if "parameters" in operation:
                operation["parameters"] = [one for one in operation["parameters"] if one["name"] not in LEFT_OUT]
    return {**whole, "paths": paths}


@pytest.mark.parametrize(("path", "plural"), SUBSET, ids=[plural for _, plural in SUBSET])
def test_requests_made_from_the_document_get_answers_that_fit_it(
    path: str, plural: str, served: Cluster, session: requests.Session, namespace: str
) -> None:
    schema = schemathesis.openapi.from_dict(document(served, session, path, plural))
    codes: list[int] = []
    failures: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            if "namespace" in case.path_parameters:
                case.path_parameters["namespace"] = namespace
            if case.method == "DELETE" and "name" not in case.path_parameters:
                # The system's own objects are not to be deleted all at once.
                case.query = {**(case.query or {}), "labelSelector": "nobody=has"}
            response = case.call(base_url=f"https://{served.bind}", session=session, verify=session.verify, timeout=60)
            codes.append(response.status_code)
            try:
                case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])
            except schemathesis.core.failures.FailureGroup as wrong:
                # Hypothesis would ask again, of objects that are no longer as they were.
                failures.append("\n".join(str(one) for one in wrong.exceptions))
            if response.status_code >= 400 and case.method != "HEAD":
                status = json.loads(response.content)
                assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", response.status_code)

        ask()
    assert failures == []
    assert {200, 201} & set(codes) and len(codes) >= 5 * EXAMPLES, codes
