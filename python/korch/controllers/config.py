"""What can be set on the controllers: periods, limits and facts of the cluster. The names follow kube-controller-manager's flags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from korch.api.features import Features


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """All settings of all controllers; times in seconds. The defaults are upstream's."""

    # The PEM of the authority that signed the API server's certificate; empty: no kube-root-ca.crt is published.
    root_ca_pem: str = ""
    # Signs a PEM signing request for these usages and at most so many seconds (None: the default), and returns PEM; raises ValueError.
    # Without it certificates are approved but not signed here.
    sign_certificate: Callable[[bytes, Sequence[str], int | None], bytes] | None = None
    # Pod network of the cluster and the prefix length of every node's part; empty: nodes are given none.
    cluster_cidr: str = "10.244.0.0/16"
    node_cidr_mask: int = 24
    node_monitor_period_s: float = 5.0
    # An agent that is silent for this long is lost; a node that never reported gets the longer time.
    node_monitor_grace_period_s: float = 50.0
    node_startup_grace_period_s: float = 60.0
    # Nodes a second that may begin to be evicted, the rate when many are down, and what counts as many and as a large cluster.
    node_eviction_rate_per_s: float = 0.1
    secondary_node_eviction_rate_per_s: float = 0.01
    large_cluster_nodes: int = 50
    unhealthy_threshold: float = 0.55
    # Terminated pods beyond this number are deleted, oldest first; 0 keeps all.
    terminated_pod_threshold: int = 12500
    pod_gc_period_s: float = 20.0
    # A pod whose node is gone is deleted after this quarantine.
    missing_node_quarantine_s: float = 40.0
    event_ttl_s: float = 3600.0
    event_ttl_period_s: float = 60.0
    # How often the garbage collector and the namespace controller look for new kinds.
    discovery_period_s: float = 30.0
    features: Features = field(default_factory=Features)
