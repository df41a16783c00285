"""korch-agent: the node agent (kubelet) of korch, driving containerd over CRI."""

import os

# The agent starts programs (ip, nft, the proxy); gRPC's own fork handlers are for servers that fork themselves, and crash.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

__version__ = "0.1.0"
