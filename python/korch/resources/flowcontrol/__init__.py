"""Kinds of flowcontrol.apiserver.k8s.io: whose requests come first when there are too many."""
