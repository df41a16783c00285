"""The Container Runtime Interface: what the agent asks of containerd, as values (`protocol`) and over gRPC (`grpc`)."""
