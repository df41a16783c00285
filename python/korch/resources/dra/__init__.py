"""Kinds of resource.k8s.io (dynamic resource allocation): devices, and claims to them."""
