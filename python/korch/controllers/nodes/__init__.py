"""What the node controllers share: a node's health, the taints that follow from it, evictions by taints, pod address ranges."""
