"""Custom kinds: a CustomResourceDefinition becomes a `Resource(...)` of the catalogue while the server runs."""
