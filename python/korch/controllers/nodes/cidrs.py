"""Giving every node a part of the cluster's pod network. Mirrors pkg/controller/nodeipam/ipam/cidrset."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator


class CidrsExhausted(Exception):
    """Every part of the cluster's network has been given out."""


def subnets(cluster_cidr: str, node_mask: int) -> Iterator[str]:
    """Yield the parts of `cluster_cidr`, each of prefix length `node_mask`, in order. Raises ValueError when they do not fit."""
    network = ipaddress.ip_network(cluster_cidr)
    if not network.prefixlen <= node_mask <= network.max_prefixlen:
        raise ValueError(f"node mask /{node_mask} does not fit into cluster CIDR {cluster_cidr}")
    return (str(one) for one in network.subnets(new_prefix=node_mask))


def first_free(cluster_cidr: str, node_mask: int, used: Iterable[str]) -> str:
    """Return the first part that overlaps none of `used`. Raises CidrsExhausted."""
    taken: set[str] = set()
    odd: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for text in used:
        network = ipaddress.ip_network(text)
        taken.add(str(network))
        if network.prefixlen != node_mask:
            odd.append(network)
    for one in subnets(cluster_cidr, node_mask):
        if one in taken:
            continue
        candidate = ipaddress.ip_network(one)
        if not any(other.version == candidate.version and other.overlaps(candidate) for other in odd):
            return one
    raise CidrsExhausted(f"no free /{node_mask} left in cluster CIDR {cluster_cidr}")
