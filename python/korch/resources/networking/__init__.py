"""Kinds of networking.k8s.io: ways into the cluster, walls in it, its addresses."""
