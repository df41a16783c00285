"""Kinds of apiregistration.k8s.io: who serves which group and version."""
