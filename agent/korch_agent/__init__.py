"""korch-agent: the node agent (kubelet) of korch, driving containerd over CRI."""

__version__ = "0.1.0"
