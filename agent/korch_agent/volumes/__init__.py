"""volumes of the node agent."""
