"""Kinds of authentication.k8s.io: who is asking."""
