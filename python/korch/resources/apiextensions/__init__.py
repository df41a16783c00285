"""Kinds of apiextensions.k8s.io, and what holds for the schemas of custom kinds."""
