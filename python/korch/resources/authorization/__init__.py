"""Kinds of authorization.k8s.io: who may do what."""
