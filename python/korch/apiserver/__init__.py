"""The Kubernetes API over REST: one parametric route, a pipeline of pure steps, and the store below."""
