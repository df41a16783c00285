"""Composition roots: the only place that wires rooms together."""
