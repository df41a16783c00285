"""Kinds of policy: how much disruption applications bear."""
