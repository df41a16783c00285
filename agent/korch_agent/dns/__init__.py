"""Cluster DNS of one node: names of Services answered from a local cache, all other names forwarded."""
