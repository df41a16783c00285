"""kubeconfig files: which clusters there are, who one is there, and which pair is meant now.

Reads what kubectl reads: several files in $KUBECONFIG (the first to name a thing wins), data embedded as base64 or in files
relative to the kubeconfig, certificates, tokens. Credential plugins (`exec`, `auth-provider`) are refused with a clear error.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from korch.client.http import Credentials, HttpClient

DEFAULT_PATH = Path("~/.kube/config")
SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(ValueError):
    """The file is missing, is not a kubeconfig, or lacks what was asked for; the message says which."""


@dataclass(slots=True)
class Kubeconfig:
    """One kubeconfig, several merged into one, or a new one. `clusters`, `users` and `contexts` map names to the file's own dicts."""

    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    contexts: dict[str, dict[str, Any]] = field(default_factory=dict)
    current_context: str = ""

    def namespace(self, context: str = "") -> str:
        """Return the namespace of a context (of the current one by default)."""
        return self._context(context).get("namespace") or "default"

    def client(self, context: str = "", *, user_agent: str = "korch") -> HttpClient:
        """Return a client for a context (the current one by default). Raises KubeconfigError."""
        chosen = self._context(context)
        cluster = _named(self.clusters, chosen.get("cluster", ""), "cluster")
        user = _named(self.users, chosen["user"], "user") if chosen.get("user") else {}
        server = cluster.get("server") or "http://localhost:8080"
        return HttpClient(server, credentials=_credentials(cluster, user), user_agent=user_agent)

    def add(self, name: str, *, cluster: dict[str, Any], user: dict[str, Any], namespace: str = "") -> None:
        """Put a cluster, its user and a context for both under `name`, replacing older ones, and make it the current context."""
        self.clusters[name] = cluster
        self.users[name] = user
        self.contexts[name] = {"cluster": name, "user": name} | ({"namespace": namespace} if namespace else {})
        self.current_context = name

    def remove(self, name: str) -> None:
        """Drop a context with the cluster and user of the same name; unknown names are no error."""
        for table in (self.clusters, self.users, self.contexts):
            table.pop(name, None)
        if self.current_context == name:
            self.current_context = ""

    def to_yaml(self) -> str:
        """Return the file's text."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "preferences": {},
            "clusters": [{"name": name, "cluster": one} for name, one in self.clusters.items()],
            "users": [{"name": name, "user": one} for name, one in self.users.items()],
            "contexts": [{"name": name, "context": one} for name, one in self.contexts.items()],
            "current-context": self.current_context,
        }
        return yaml.safe_dump(document, sort_keys=False)

    def save(self, path: str | Path) -> None:
        """Write the file (mode 0600) in one step: a reader sees the old text or the new."""
        target = Path(path).expanduser()
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
                out.write(self.to_yaml())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    def _context(self, name: str) -> dict[str, Any]:
        wanted = name or self.current_context
        if not wanted:
            raise KubeconfigError("current-context is not set")
        return _named(self.contexts, wanted, "context")


def load(path: str | Path = "") -> Kubeconfig:
    """Return the kubeconfig at `path`; without one, those of $KUBECONFIG merged, or ~/.kube/config. Raises KubeconfigError."""
    if path:
        return _read(Path(path).expanduser())
    listed = [Path(one) for one in os.environ.get("KUBECONFIG", "").split(os.pathsep) if one]
    merged = Kubeconfig()
    found = [one for one in listed or [DEFAULT_PATH.expanduser()] if one.exists()]
    if not found:
        raise KubeconfigError("no kubeconfig: set KUBECONFIG or write ~/.kube/config")
    for one in found:
        read = _read(one)
        merged.clusters = read.clusters | merged.clusters
        merged.users = read.users | merged.users
        merged.contexts = read.contexts | merged.contexts
        merged.current_context = merged.current_context or read.current_context
    return merged


def client_from_kubeconfig(path: str | Path = "", *, context: str = "", user_agent: str = "korch") -> HttpClient:
    """Return a client for a context of the kubeconfig at `path` (see `load`). Raises KubeconfigError."""
    return load(path).client(context, user_agent=user_agent)


def in_cluster(directory: Path = SERVICE_ACCOUNT_DIR, *, user_agent: str = "korch") -> HttpClient:
    """Return the client of a pod: its service account's token, which is read again as it rotates. Raises KubeconfigError outside a pod."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (directory / "token").exists():
        raise KubeconfigError(
            "not in a cluster: KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT or the service account's token is missing"
        )
    credentials = Credentials(ca_file=str(directory / "ca.crt"), token_file=str(directory / "token"))
    return HttpClient(f"https://{f'[{host}]' if ':' in host else host}:{port}", credentials=credentials, user_agent=user_agent)


def _read(path: Path) -> Kubeconfig:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise KubeconfigError(f"{path}: {error}") from error
    if document is None:
        return Kubeconfig()
    if not isinstance(document, dict):
        raise KubeconfigError(f"{path}: not a kubeconfig")
    made = Kubeconfig(current_context=document.get("current-context") or "")
    for listed, key, table in (
        ("clusters", "cluster", made.clusters),
        ("users", "user", made.users),
        ("contexts", "context", made.contexts),
    ):
        for entry in document.get(listed) or ():
            table.setdefault(entry["name"], _with_absolute_paths(entry.get(key) or {}, path.parent))
    return made


def _with_absolute_paths(entry: dict[str, Any], directory: Path) -> dict[str, Any]:
    names = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
    return entry | {name: str(directory / entry[name]) for name in names if entry.get(name)}


def _credentials(cluster: dict[str, Any], user: dict[str, Any]) -> Credentials:
    if plugin := next((name for name in ("exec", "auth-provider") if user.get(name)), ""):
        raise KubeconfigError(f"the user's credentials come from a plugin ({plugin}), which is not supported: use a certificate or a token")
    return Credentials(
        ca_file="" if cluster.get("certificate-authority-data") else cluster.get("certificate-authority") or "",
        ca_data=_decoded(cluster, "certificate-authority-data").decode(),
        insecure_skip_tls_verify=bool(cluster.get("insecure-skip-tls-verify")),
        tls_server_name=cluster.get("tls-server-name") or "",
        client_cert_file="" if user.get("client-certificate-data") else user.get("client-certificate") or "",
        client_key_file="" if user.get("client-key-data") else user.get("client-key") or "",
        client_cert_data=_decoded(user, "client-certificate-data"),
        client_key_data=_decoded(user, "client-key-data"),
        token=user.get("token") or "",
        token_file=user.get("tokenFile") or "",
    )


def _decoded(entry: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(entry.get(name) or b"", validate=True)
    except ValueError as error:
        raise KubeconfigError(f"{name}: not base64") from error


def _named(table: dict[str, dict[str, Any]], name: str, what: str) -> dict[str, Any]:
    if name not in table:
        raise KubeconfigError(f'{what} "{name}" does not exist')
    return table[name]
