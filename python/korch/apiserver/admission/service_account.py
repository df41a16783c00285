"""ServiceAccount: every pod runs as an account, and finds that account's token mounted unless it opts out.

Fills in `spec.serviceAccountName` (`default` when empty), checks that the account exists, and adds a projected volume with a
bound token, the cluster's CA and the namespace. Mirrors plugin/pkg/admission/serviceaccount/admission.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from korch.api.errors import ApiError, Forbidden
from korch.api.meta import at
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.records import Records, load
from korch.resources.resource import Catalogue
from korch.runtime.rng import Rng

if TYPE_CHECKING:
    from korch.apiserver.pod_recipes import PodFacts

Object = dict[str, Any]

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_VOLUME_PREFIX = "kube-api-access-"
_TOKEN_EXPIRATION_S = 3607
_CONTAINER_LISTS = ("initContainers", "containers")


class ServiceAccount:
    """Gives pods their account and its token."""

    def __init__(self, records: Records, catalogue: Catalogue, rng: Rng) -> None:
        self._records = records
        self._catalogue = catalogue
        self._rng = rng

    def admit(self, request: AdmissionRequest) -> None:
        """Change a new pod; raise Forbidden when its account does not exist."""
        if request.operation != "CREATE" or not request.concerns("", "pods") or request.obj is None:
            return
        pod = request.obj
        spec = pod.setdefault("spec", {})
        # Mirror pods stand for what a node runs already; they have no account.
        if "kubernetes.io/config.mirror" in (at(pod, "metadata", "annotations") or {}):
            return
        account_name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = account_name
        account = self._account(request.namespace, account_name)
        if account is None:
            raise self._missing(request, pod, account_name)
        if _wants_token(spec, account):
            self._mount(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]

    def pod_footing(self, pod: PodFacts) -> object | None:
        """Return the version of the pod's account."""
        accounts = self._catalogue.get("", "v1", "serviceaccounts")
        found = self._records.storage.get(accounts.key(pod.namespace, pod.account)) if accounts is not None else None
        return None if found is None else found.mod_revision

    def _account(self, namespace: str, name: str) -> Object | None:
        accounts = self._catalogue.get("", "v1", "serviceaccounts")
        if accounts is None:
            return {}
        found = self._records.storage.get(accounts.key(namespace, name))
        return None if found is None else load(accounts, found.value)

    def _missing(self, request: AdmissionRequest, pod: Object, account: str) -> ApiError:
        name = at(pod, "metadata", "name") or at(pod, "metadata", "generateName") or ""
        why = f'error looking up service account {request.namespace}/{account}: serviceaccount "{account}" not found'
        return Forbidden("", "pods", name, why)

    def _mount(self, spec: Object) -> None:
        volumes: list[Object] = spec.get("volumes") or []
        volume = next((one["name"] for one in volumes if one.get("name", "").startswith(TOKEN_VOLUME_PREFIX) and one.get("projected")), "")
        is_needed = False
        volume_name = volume or TOKEN_VOLUME_PREFIX + self._rng.name_suffix()
        for container in (one for key in _CONTAINER_LISTS for one in spec.get(key) or []):
            mounts: list[Object] = container.get("volumeMounts") or []
            if any(mount.get("mountPath") == MOUNT_PATH for mount in mounts):
                continue
            container["volumeMounts"] = [*mounts, {"name": volume_name, "readOnly": True, "mountPath": MOUNT_PATH}]
            is_needed = True
        if is_needed and not volume:
            spec["volumes"] = [*volumes, token_volume(volume_name)]


def token_volume(name: str) -> Object:
    """Return the projected volume that holds token, CA certificate and namespace."""
    namespace_field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    sources: list[Object] = [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_EXPIRATION_S, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace_field}]}},
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 420}}


def _wants_token(spec: Object, account: Object) -> bool:
    for holder in (spec, account):
        if (wish := holder.get("automountServiceAccountToken")) is not None:
            return bool(wish)
    return True
