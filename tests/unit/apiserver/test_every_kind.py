"""One good object of each of the smaller kinds, through the whole life that the API offers: create, read, change, delete.

Also what is wrong with bad ones, in upstream's words.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest
from api_exchange import Api, on_server, serve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from korch.resources import catalogue

Object = dict[str, Any]


def signing_request(common_name: str = "jane", organization: str = "") -> str:
    """Return spec.request: base64 of a PEM signing request."""
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


_HOST_PATH = {"hostPath": {"path": "/data"}, "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}
_CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
_RULE = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
_WEBHOOK = {
    "name": "a.example.com",
    "clientConfig": {"url": "https://example.com/x"},
    "rules": [_RULE],
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
}
_MATCH = {"resourceRules": [_RULE]}
_PATCH = {"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}
_DEVICES = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}
_SUBJECTS = [{"kind": "Group", "group": {"name": "g"}}]
_FLOW_RULES = [{"subjects": _SUBJECTS, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}]
_POD_UIDS = {"podUID": "u", "serviceAccountUID": "u", "nodeUID": "u"}

# (group, plural) -> the object without its name.
GOOD: dict[tuple[str, str], Object] = {
    ("", "limitranges"): {"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}},
    ("", "resourcequotas"): {"spec": {"hard": {"pods": "5"}}},
    ("", "persistentvolumes"): {"spec": _HOST_PATH},
    ("", "persistentvolumeclaims"): {"spec": _CLAIM},
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): {"webhooks": [_WEBHOOK]},
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): {"webhooks": [_WEBHOOK]},
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): {
        "spec": {"matchConstraints": _MATCH, "validations": [{"expression": "true"}]}
    },
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): {"spec": {"policyName": "p", "validationActions": ["Deny"]}},
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"): {
        "spec": {"matchConstraints": _MATCH, "mutations": [_PATCH], "reinvocationPolicy": "Never"}
    },
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"): {"spec": {"policyName": "p"}},
    ("autoscaling", "horizontalpodautoscalers"): {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3}},
    ("certificates.k8s.io", "certificatesigningrequests"): {
        "spec": {"request": signing_request(), "signerName": "example.com/s", "usages": ["client auth"]}
    },
    ("certificates.k8s.io", "podcertificaterequests"): {
        "spec": {
            **_POD_UIDS,
            "podName": "p",
            "serviceAccountName": "default",
            "nodeName": "n1",
            "signerName": "example.com/s",
            "stubPKCS10Request": "AA==",
        }
    },
    ("flowcontrol.apiserver.k8s.io", "flowschemas"): {"spec": {"priorityLevelConfiguration": {"name": "system"}, "rules": _FLOW_RULES}},
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"): {
        "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}
    },
    ("networking.k8s.io", "ingresses"): {"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}},
    ("networking.k8s.io", "ingressclasses"): {"spec": {"controller": "example.com/ingress"}},
    ("networking.k8s.io", "networkpolicies"): {"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}},
    ("networking.k8s.io", "servicecidrs"): {"spec": {"cidrs": ["10.1.0.0/16"]}},
    ("node.k8s.io", "runtimeclasses"): {"handler": "sandboxed"},
    ("policy", "poddisruptionbudgets"): {"spec": {"minAvailable": 1, "selector": {}}},
    ("resource.k8s.io", "deviceclasses"): {"spec": {"selectors": [{"cel": {"expression": "true"}}]}},
    ("resource.k8s.io", "devicetaintrules"): {"spec": {"taint": {"key": "k", "effect": "NoSchedule"}}},
    ("resource.k8s.io", "resourceclaims"): {"spec": _DEVICES},
    ("resource.k8s.io", "resourceclaimtemplates"): {"spec": {"spec": _DEVICES}},
    ("resource.k8s.io", "resourceslices"): {
        "spec": {"driver": "gpu.example.com", "nodeName": "n1", "pool": {"name": "n1", "resourceSliceCount": 1}}
    },
    ("scheduling.k8s.io", "priorityclasses"): {"value": 7},
    ("storage.k8s.io", "csidrivers"): {"spec": {}},
    ("storage.k8s.io", "csinodes"): {"spec": {"drivers": [{"name": "csi.example.com", "nodeID": "n"}]}},
    ("storage.k8s.io", "csistoragecapacities"): {"storageClassName": "fast", "capacity": "1Gi"},
    ("storage.k8s.io", "storageclasses"): {"provisioner": "csi.example.com"},
    ("storage.k8s.io", "volumeattachments"): {
        "spec": {"attacher": "csi.example.com", "nodeName": "n1", "source": {"persistentVolumeName": "v"}}
    },
    ("storage.k8s.io", "volumeattributesclasses"): {"driverName": "csi.example.com", "parameters": {"a": "b"}},
    ("storagemigration.k8s.io", "storageversionmigrations"): {"spec": {"resource": {"group": "apps", "resource": "deployments"}}},
}
KINDS = {(one.group, one.plural): one for one in sorted(catalogue().all(), key=lambda one: one.version)}


def collection(key: tuple[str, str]) -> str:
    kind = KINDS[key]
    prefix = f"/apis/{kind.api_version}" if kind.group else "/api/v1"
    return f"{prefix}/{'namespaces/d/' if kind.namespaced else ''}{kind.plural}"


@pytest.mark.parametrize("key", GOOD, ids=lambda key: f"{key[1]}.{key[0] or 'core'}")
def test_an_object_lives_its_whole_life(key: tuple[str, str]) -> None:
    async def story(api: Api) -> None:
        await api.namespace()
        path, kind = collection(key), KINDS[key]
        body = {"metadata": {"name": "one.example.com" if kind.kind == "CSIDriver" else "one"}, **GOOD[key]}
        name = body["metadata"]["name"]
        made = await api.made(path, body)
        assert made["kind"] == kind.kind and made["apiVersion"] == kind.api_version
        assert (await api.post(path, body)).says[1] == "AlreadyExists"
        assert (await api.get(f"{path}/{name}")).json == made
        again = await api.put(f"{path}/{name}", made)
        assert again.code == 200 and again.json == made, again.body
        patched = await api.patch(f"{path}/{name}", {"metadata": {"labels": {"a": "b"}}})
        assert patched.code == 200, patched.body
        assert patched.json["metadata"].get("generation") == made["metadata"].get("generation")
        assert [one["metadata"]["name"] for one in (await api.get(path, labelSelector="a=b")).json["items"]] == [name]
        for part in kind.subresources:
            shown = await api.get(f"{path}/{name}/{part.name}")
            assert shown.code == 200 and shown.json["metadata"]["name"] == name
            conditions = {
                "status": {
                    "conditions": [
                        {"type": "Ready", "status": "True", "reason": "r", "message": "m", "lastTransitionTime": "2027-01-15T07:55:00Z"}
                    ]
                }
            }
            if "conditions" in str(made.get("status")) or (kind.strategy.has_status and kind.plural not in NO_CONDITIONS):
                written = await api.patch(f"{path}/{name}/{part.name}", conditions)
                assert written.code == 200, written.body
                assert written.json["status"]["conditions"][0]["type"] == "Ready"
                assert written.json["metadata"].get("generation") == made["metadata"].get("generation")
        assert (await api.delete(f"{path}/{name}")).code == 200
        if made["metadata"].get("finalizers"):
            # Whoever protects the object lets go of it.
            assert (await api.get(f"{path}/{name}")).json["metadata"]["deletionTimestamp"]
            assert (await api.patch(f"{path}/{name}", {"metadata": {"finalizers": None}})).code == 200
        assert (await api.get(f"{path}/{name}")).code == 404

    serve(story)


NO_CONDITIONS = {
    "ingresses",
    "persistentvolumes",
    "volumeattachments",
    "resourcequotas",
    "persistentvolumeclaims",
    "resourceclaims",
    "validatingadmissionpolicies",
}


_PODS = {
    "selector": {"matchLabels": {"a": "b"}},
    "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
}
_RANKS = {"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}
_BUDGET = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}
# What the status of a new object counts, though nobody has counted yet.
COUNTED: dict[tuple[str, str], tuple[Object, dict[str, int]]] = {
    ("", "replicationcontrollers"): ({"spec": _PODS | {"selector": {"a": "b"}}}, {"replicas": 0}),
    ("apps", "replicasets"): ({"spec": _PODS}, {"replicas": 0}),
    ("apps", "statefulsets"): ({"spec": _PODS}, {"replicas": 0, "availableReplicas": 0}),
    ("apps", "daemonsets"): ({"spec": _PODS}, _RANKS),
    ("apps", "deployments"): ({"spec": _PODS}, {}),
    ("autoscaling", "horizontalpodautoscalers"): (GOOD["autoscaling", "horizontalpodautoscalers"], {"desiredReplicas": 0}),
    ("policy", "poddisruptionbudgets"): (GOOD["policy", "poddisruptionbudgets"], _BUDGET),
}


@pytest.mark.parametrize("key", COUNTED, ids=lambda key: key[1])
def test_counts_that_are_always_there_are_zero_from_the_start(key: tuple[str, str]) -> None:
    async def story(api: Api) -> None:
        await api.namespace()
        body, counts = COUNTED[key]
        made = await api.made(collection(key), {"metadata": {"name": "one"}, **body})
        assert made["status"] == counts
        owned = [one["fieldsV1"] for one in made["metadata"]["managedFields"]]
        assert not any("f:status" in fields for fields in owned)
        written = await api.put(f"{collection(key)}/one/status", {**made, "status": {}})
        assert (written.code, written.json["status"]) == (200, counts)

    serve(story)


# (group, plural), what is wrong, and the causes as `field: message`.
BAD: list[tuple[tuple[str, str], Object, list[str]]] = [
    (
        ("autoscaling", "horizontalpodautoscalers"),
        {"spec": {"minReplicas": 0}},
        [
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
            "spec.maxReplicas: Invalid value: 0: must be greater than 0",
            "spec.scaleTargetRef.kind: Required value",
            "spec.scaleTargetRef.name: Required value",
        ],
    ),
    (
        ("policy", "poddisruptionbudgets"),
        {"spec": {"minAvailable": 1, "maxUnavailable": "101%"}},
        [
            'spec: Invalid value: {"minAvailable":1,"maxUnavailable":"101%"}: minAvailable and maxUnavailable cannot be both set',
            'spec.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
        ],
    ),
    (
        ("networking.k8s.io", "ingresses"),
        {"spec": {"rules": [{"host": "10.0.0.1", "http": {"paths": [{"path": "x", "backend": {}}]}}]}},
        [
            'spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address',
            "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            'spec.rules[0].http.paths[0].backend: Invalid value: "": resource or service backend is required',
        ],
    ),
    (
        ("networking.k8s.io", "networkpolicies"),
        {"spec": {"ingress": [{"from": [{}], "ports": [{"port": 80, "endPort": 7}]}]}},
        [
            "spec.ingress[0].ports[0].endPort: Invalid value: 7: must be greater than or equal to `port`",
            "spec.ingress[0].from[0]: Required value: must specify a peer",
        ],
    ),
    (
        ("", "persistentvolumes"),
        {"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}},
        ["spec: Required value: must specify a volume type"],
    ),
    (
        ("", "persistentvolumeclaims"),
        {"spec": {}},
        ["spec.accessModes: Required value: at least 1 access mode is required", "spec.resources[storage]: Required value"],
    ),
    (
        ("", "limitranges"),
        {"spec": {"limits": [{"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}},
        ['spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1'],
    ),
    (
        ("", "resourcequotas"),
        {"spec": {"hard": {"apples": "1"}, "scopes": ["Terminating", "NotTerminating"]}},
        [
            'spec.hard[apples]: Invalid value: "apples": must be a standard resource for quota',
            'spec.scopes: Invalid value: ["Terminating","NotTerminating"]: conflicting scopes',
        ],
    ),
    (
        ("scheduling.k8s.io", "priorityclasses"),
        {"value": 2_000_000_000},
        ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    ),
    (("storage.k8s.io", "storageclasses"), {}, ["provisioner: Required value"]),
    (("node.k8s.io", "runtimeclasses"), {}, ["handler: Required value"]),
    (
        ("certificates.k8s.io", "certificatesigningrequests"),
        {"spec": {"request": "AAAA", "signerName": "x", "usages": ["flying"], "expirationSeconds": 5}},
        [
            'spec.request: Invalid value: "AAAA": PEM block type must be CERTIFICATE REQUEST',
            "spec.usages[0]: Unsupported value",
            "spec.signerName: Invalid value: \"x\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
            "spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)",
        ],
    ),
    (
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
        {"spec": {"type": "Limited"}},
        ["spec.limited: Required value: must not be empty when type is Limited"],
    ),
    (
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
        {"webhooks": [{**_WEBHOOK, "name": "short", "timeoutSeconds": 31}]},
        [
            'webhooks[0].name: Invalid value: "short": should be a domain with at least three segments separated by dots',
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        ],
    ),
    (
        ("resource.k8s.io", "resourceclaims"),
        {"spec": {"devices": {"requests": [{"name": "r"}]}}},
        ["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"],
    ),
    (("networking.k8s.io", "ipaddresses"), {"spec": {}}, ["spec.parentRef: Required value"]),
]


@pytest.mark.parametrize(("key", "body", "causes"), BAD, ids=lambda one: one[1] if isinstance(one, tuple) else "")
def test_a_bad_object_is_refused_in_upstreams_words(key: tuple[str, str], body: Object, causes: list[str]) -> None:
    async def story(api: Api) -> None:
        await api.namespace()
        name = "10.96.0.77" if key[1] == "ipaddresses" else "one"
        answer = await api.post(collection(key), {"metadata": {"name": name}, **body})
        assert answer.code == 422, answer.body
        found = [f"{one['field']}: {one['message']}" for one in answer.json["details"]["causes"]]
        assert len(found) == len(causes) and all(one.startswith(wanted) for one, wanted in zip(found, causes, strict=True)), found

    serve(story)


@on_server
async def test_both_versions_of_an_autoscaler_show_the_same_object(api: Api) -> None:
    await api.namespace()
    v1, v2 = ("/apis/autoscaling/" + one + "/namespaces/d/horizontalpodautoscalers" for one in ("v1", "v2"))
    target = {"kind": "Deployment", "name": "web"}
    made = await api.made(
        v1, {"metadata": {"name": "a"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 60}}
    )
    assert made["apiVersion"] == "autoscaling/v1" and made["spec"]["targetCPUUtilizationPercentage"] == 60
    shown = (await api.get(f"{v2}/a")).json
    assert shown["apiVersion"] == "autoscaling/v2"
    assert shown["spec"]["metrics"] == [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}
    ]
    memory = {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}}}
    assert (await api.patch(f"{v2}/a", {"spec": {"metrics": [*shown["spec"]["metrics"], memory]}})).code == 200
    old = (await api.get(f"{v1}/a")).json
    assert old["spec"]["targetCPUUtilizationPercentage"] == 60
    assert "memory" in old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"]
    assert (await api.put(f"{v1}/a", {**old, "spec": {**old["spec"], "maxReplicas": 9}})).code == 200
    after = (await api.get(f"{v2}/a")).json
    assert after["spec"]["maxReplicas"] == 9 and after["spec"]["metrics"][1] == memory
    assert not after["metadata"].get("annotations")


@on_server
async def test_a_signing_request_names_its_asker_and_keeps_its_decisions(api: Api) -> None:
    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    good = GOOD["certificates.k8s.io", "certificatesigningrequests"]
    lying = {"metadata": {"name": "a"}, "spec": {**good["spec"], "username": "root"}}
    assert (await api.made(path, lying))["spec"]["username"] == "system:admin"
    approved = {"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}}
    shown = await api.patch(f"{path}/a/approval", approved)
    assert shown.code == 200 and shown.json["status"]["conditions"][0]["lastUpdateTime"]
    assert (await api.patch(f"{path}/a/approval", {"status": {"conditions": []}})).code == 422
    assert (await api.patch(f"{path}/a/status", {"status": {"conditions": None}})).json["status"]["conditions"][0]["type"] == "Approved"
    both = [*shown.json["status"]["conditions"], {"type": "Denied", "status": "True"}]
    assert "mutually exclusive" in (await api.patch(f"{path}/a/approval", {"status": {"conditions": both}})).says[2]


@on_server
async def test_what_a_cluster_has_from_its_first_moment(api: Api) -> None:
    async def names(path: str) -> set[str]:
        return {one["metadata"]["name"] for one in (await api.get(path)).json["items"]}

    assert await names("/apis/scheduling.k8s.io/v1/priorityclasses") == {"system-cluster-critical", "system-node-critical"}
    flow = "/apis/flowcontrol.apiserver.k8s.io/v1"
    assert {"exempt", "catch-all"} <= await names(f"{flow}/flowschemas") & await names(f"{flow}/prioritylevelconfigurations")
    services = (await api.get("/apis/apiregistration.k8s.io/v1/apiservices")).json["items"]
    assert {"v1.", "v1.apps", "v2.autoscaling"} <= {one["metadata"]["name"] for one in services}
    assert all(one["status"]["conditions"][0]["reason"] == "Local" for one in services)
    assert await names("/apis/networking.k8s.io/v1/servicecidrs") == {"kubernetes"}
    assert await names("/api/v1/componentstatuses") == {"etcd-0"}
    assert (await api.get("/api/v1/componentstatuses/etcd-0")).json["conditions"][0]["status"] == "True"
    assert (await api.get("/api/v1/componentstatuses/nothing")).code == 404
