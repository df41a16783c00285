"""Where a cluster keeps its files: everything korch writes lies below one data directory."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below a data directory."""

    root: Path

    @staticmethod
    def at(data_dir: str | None) -> Layout:
        """Return the layout of `data_dir`, or of the user's default: /var/lib/korch for root, else under XDG_DATA_HOME."""
        if data_dir:
            return Layout(Path(data_dir).expanduser().resolve())
        if os.geteuid() == 0:
            return Layout(Path("/var/lib/korch"))
        base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return Layout(Path(base).expanduser() / "korch")

    @property
    def cluster_id(self) -> str:
        """Return six hex digits that tell clusters of one machine apart in names of bridges and namespaces."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:6]

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def store(self) -> Path:
        return self.root / "server" / "store"

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def images(self) -> Path:
        """Image archives (*.tar) that every node of this machine imports when it starts."""
        return self.root / "images"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What lives only as long as the processes do: sockets, pids, the record of changes to the machine."""
        return self.root / "run"

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def processes(self) -> Path:
        return self.run / "processes.json"

    @property
    def machine_changes(self) -> Path:
        return self.run / "machine.json"

    def node(self, name: str) -> Path:
        return self.root / "nodes" / name

    def make(self) -> None:
        """Create the directories that every cluster has."""
        for directory in (self.root, self.pki, self.logs, self.run, self.images):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
