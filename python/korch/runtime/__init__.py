"""Everything nondeterministic, injected: clock, randomness, tasks, offloading, logs, metrics."""
