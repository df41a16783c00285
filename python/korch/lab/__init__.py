"""Scheduling benchmarks and what-if simulation."""
