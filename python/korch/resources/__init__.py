"""The catalogue: one Resource(...) for every kind that is served."""
