"""What a Kubernetes object is, without I/O: names, errors, selectors, quantities, patches, schemas, tables."""
