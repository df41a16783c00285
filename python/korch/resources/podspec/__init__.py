"""What every kind that holds a pod shares: defaults, rules and columns of the pod spec and the pod template."""
