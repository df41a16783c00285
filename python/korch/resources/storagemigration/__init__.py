"""Kinds of storagemigration.k8s.io: writing stored objects anew in the current form."""
