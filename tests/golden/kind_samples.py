"""Objects of the smaller kinds, in the states that their table rows tell apart."""

from __future__ import annotations

from tests.golden.samples import Object, meta


def wide(name: str, **more: object) -> Object:
    """Return the metadata of a cluster-wide object."""
    metadata = meta(name, **more)
    del metadata["namespace"]
    return metadata


_SUBJECTS = [
    {"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"},
    {"kind": "User", "name": "tom", "apiGroup": "rbac.authorization.k8s.io"},
    {"kind": "Group", "name": "team", "apiGroup": "rbac.authorization.k8s.io"},
    {"kind": "ServiceAccount", "name": "robot", "namespace": "default"},
]
_ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}

_CLAIM_SPEC = {
    "accessModes": ["ReadWriteOnce"],
    "resources": {"requests": {"storage": "1Gi"}},
    "storageClassName": "fast",
    "volumeMode": "Block",
}
_HPA = {
    "scaleTargetRef": {"kind": "Deployment", "name": "web"},
    "maxReplicas": 5,
    "metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
        {"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "100m"}}},
        {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "7"}}},
    ],
}
_MEASURED = [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 30, "averageValue": "3m"}}}]
_CSR = {"signerName": "kubernetes.io/kube-apiserver-client", "username": "jane"}
_DENIED = [{"type": "Denied", "status": "True"}]
_APPROVED = [{"type": "Approved", "status": "True"}]
_HOSTS = [{"host": f"{one}.example.com"} for one in "abcde"]

KIND_SAMPLES: dict[tuple[str, str], list[Object]] = {
    ("rbac.authorization.k8s.io", "roles"): [{"metadata": meta("reader")}],
    ("rbac.authorization.k8s.io", "clusterroles"): [{"metadata": wide("view")}],
    ("rbac.authorization.k8s.io", "rolebindings"): [{"metadata": meta("readers"), "subjects": _SUBJECTS, "roleRef": _ROLE}],
    ("rbac.authorization.k8s.io", "clusterrolebindings"): [{"metadata": wide("all"), "subjects": _SUBJECTS, "roleRef": _ROLE}],
    ("", "componentstatuses"): [
        {"metadata": wide("etcd-0"), "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]},
        {"metadata": wide("scheduler"), "conditions": [{"type": "Healthy", "status": "False", "error": "gone"}]},
    ],
    ("", "limitranges"): [{"metadata": meta("sizes")}],
    ("", "resourcequotas"): [
        {
            "metadata": meta("q"),
            "status": {"hard": {"pods": "5", "requests.cpu": "2", "limits.cpu": "4"}, "used": {"pods": "1", "requests.cpu": "500m"}},
        },
        {"metadata": meta("new")},
    ],
    ("", "persistentvolumes"): [
        {
            "metadata": wide("disk"),
            "spec": {
                "capacity": {"storage": "5Gi"},
                "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "fast",
                "volumeMode": "Filesystem",
                "claimRef": {"namespace": "default", "name": "data"},
            },
            "status": {"phase": "Bound"},
        },
        {"metadata": wide("old", deletionTimestamp="2027-01-15T07:59:00Z"), "spec": {}, "status": {"phase": "Released", "reason": "r"}},
    ],
    ("", "persistentvolumeclaims"): [
        {
            "metadata": meta("data"),
            "spec": {**_CLAIM_SPEC, "volumeName": "disk"},
            "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"}},
        },
        {"metadata": meta("waiting"), "spec": _CLAIM_SPEC, "status": {"phase": "Pending"}},
    ],
    ("autoscaling", "horizontalpodautoscalers"): [
        {"metadata": meta("web"), "spec": {**_HPA, "minReplicas": 2}, "status": {"currentReplicas": 3, "currentMetrics": _MEASURED}},
        {"metadata": meta("new"), "spec": {**_HPA, "metrics": []}},
    ],
    ("policy", "poddisruptionbudgets"): [
        {"metadata": meta("a"), "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}},
        {"metadata": meta("b"), "spec": {"maxUnavailable": 1}},
    ],
    ("networking.k8s.io", "ingresses"): [
        {
            "metadata": meta("web"),
            "spec": {"ingressClassName": "nginx", "rules": _HOSTS, "tls": [{}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"hostname": "lb.example.com"}]}},
        },
        {"metadata": meta("all"), "spec": {"defaultBackend": {}}},
    ],
    ("networking.k8s.io", "ingressclasses"): [
        {
            "metadata": wide("nginx"),
            "spec": {"controller": "example.com/nginx", "parameters": {"apiGroup": "example.com", "kind": "Settings", "name": "s"}},
        },
        {"metadata": wide("plain"), "spec": {"controller": "example.com/plain"}},
    ],
    ("networking.k8s.io", "ipaddresses"): [
        {"metadata": wide("10.96.0.1"), "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "kubernetes"}}},
    ],
    ("networking.k8s.io", "networkpolicies"): [
        {"metadata": meta("all"), "spec": {"podSelector": {}}},
        {"metadata": meta("web"), "spec": {"podSelector": {"matchLabels": {"app": "web"}}}},
    ],
    ("networking.k8s.io", "servicecidrs"): [{"metadata": wide("kubernetes"), "spec": {"cidrs": ["10.96.0.0/16", "fd00::/108"]}}],
    ("node.k8s.io", "runtimeclasses"): [{"metadata": wide("sandboxed"), "handler": "gvisor"}],
    ("scheduling.k8s.io", "priorityclasses"): [
        {"metadata": wide("high"), "value": 1000, "globalDefault": True, "preemptionPolicy": "Never"},
    ],
    ("storage.k8s.io", "csidrivers"): [
        {
            "metadata": wide("csi.example.com"),
            "spec": {"attachRequired": True, "volumeLifecycleModes": ["Persistent", "Ephemeral"], "tokenRequests": [{"audience": "a"}]},
        },
        {"metadata": wide("plain.example.com"), "spec": {"volumeLifecycleModes": ["Persistent"]}},
    ],
    ("storage.k8s.io", "csinodes"): [{"metadata": wide("n1"), "spec": {"drivers": [{"name": "csi.example.com", "nodeID": "n"}]}}],
    ("storage.k8s.io", "csistoragecapacities"): [{"metadata": meta("c"), "storageClassName": "fast", "capacity": "10Gi"}],
    ("storage.k8s.io", "storageclasses"): [
        {
            "metadata": wide("fast", annotations={"storageclass.kubernetes.io/is-default-class": "true"}),
            "provisioner": "csi.example.com",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        },
        {"metadata": wide("slow"), "provisioner": "csi.example.com", "reclaimPolicy": "Retain"},
    ],
    ("storage.k8s.io", "volumeattachments"): [
        {
            "metadata": wide("va"),
            "spec": {"attacher": "csi.example.com", "source": {"persistentVolumeName": "disk"}, "nodeName": "n1"},
            "status": {"attached": True},
        },
    ],
    ("storage.k8s.io", "volumeattributesclasses"): [{"metadata": wide("gold"), "driverName": "csi.example.com"}],
    ("storagemigration.k8s.io", "storageversionmigrations"): [
        {"metadata": wide("m"), "spec": {"resource": {"group": "apps", "resource": "deployments"}}},
    ],
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): [{"metadata": wide("m"), "webhooks": [{}, {}]}],
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): [{"metadata": wide("v"), "webhooks": [{}]}],
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): [
        {"metadata": wide("p"), "spec": {"validations": [{}], "paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"}}},
    ],
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): [
        {"metadata": wide("b"), "spec": {"policyName": "p", "paramRef": {"name": "x", "namespace": "default"}}},
        {"metadata": wide("c"), "spec": {"policyName": "p"}},
    ],
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"): [{"metadata": wide("p"), "spec": {"mutations": [{}]}}],
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"): [{"metadata": wide("b"), "spec": {"policyName": "p"}}],
    ("apiregistration.k8s.io", "apiservices"): [
        {"metadata": wide("v1."), "status": {"conditions": [{"type": "Available", "status": "True"}]}},
        {
            "metadata": wide("v1.example.com"),
            "spec": {"service": {"namespace": "default", "name": "api"}},
            "status": {"conditions": [{"type": "Available", "status": "False", "reason": "MissingEndpoints"}]},
        },
    ],
    ("certificates.k8s.io", "certificatesigningrequests"): [
        {"metadata": wide("new"), "spec": {**_CSR, "expirationSeconds": 86400}},
        {"metadata": wide("denied"), "spec": _CSR, "status": {"conditions": _DENIED}},
        {"metadata": wide("issued"), "spec": _CSR, "status": {"conditions": _APPROVED, "certificate": "AA=="}},
    ],
    ("certificates.k8s.io", "clustertrustbundles"): [
        {"metadata": wide("a"), "spec": {}},
        {"metadata": wide("example.com:s:a"), "spec": {"signerName": "example.com/s"}},
    ],
    ("certificates.k8s.io", "podcertificaterequests"): [
        {
            "metadata": meta("r"),
            "spec": {"podName": "p", "serviceAccountName": "default", "nodeName": "n1", "signerName": "example.com/s"},
            "status": {"conditions": [{"type": "Issued", "status": "True"}]},
        },
    ],
    ("flowcontrol.apiserver.k8s.io", "flowschemas"): [
        {
            "metadata": wide("probes"),
            "spec": {"priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 2, "distinguisherMethod": {"type": "ByUser"}},
            "status": {"conditions": [{"type": "Dangling", "status": "False"}]},
        },
    ],
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"): [
        {"metadata": wide("exempt"), "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0}}},
        {
            "metadata": wide("system"),
            "spec": {
                "type": "Limited",
                "limited": {
                    "nominalConcurrencyShares": 30,
                    "limitResponse": {"queuing": {"queues": 64, "handSize": 6, "queueLengthLimit": 50}},
                },
            },
        },
    ],
    ("resource.k8s.io", "deviceclasses"): [{"metadata": wide("gpu")}],
    ("resource.k8s.io", "devicetaintrules"): [{"metadata": wide("broken")}],
    ("resource.k8s.io", "resourceclaims"): [
        {"metadata": meta("new")},
        {"metadata": meta("used"), "status": {"allocation": {"devices": {}}, "reservedFor": [{"name": "p"}]}},
    ],
    ("resource.k8s.io", "resourceclaimtemplates"): [{"metadata": meta("t")}],
    ("resource.k8s.io", "resourceslices"): [
        {"metadata": wide("s"), "spec": {"nodeName": "n1", "driver": "gpu.example.com", "pool": {"name": "n1"}}},
    ],
}
