"""Kinds of scheduling.k8s.io: who comes first."""
