"""cri of the node agent."""
