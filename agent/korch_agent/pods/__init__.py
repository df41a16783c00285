"""pods of the node agent."""
