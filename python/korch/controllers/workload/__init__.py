"""What the workload controllers share: owning pods, making them from templates, ranking, batching, revision history."""
