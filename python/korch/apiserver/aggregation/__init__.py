"""Aggregation: group-versions that other servers serve, reached through this one. Mirrors kube-aggregator."""
