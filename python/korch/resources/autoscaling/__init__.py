"""Kinds of autoscaling: how many pods a workload needs."""
