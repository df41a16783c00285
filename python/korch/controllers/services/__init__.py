"""What the two endpoint controllers share: which pods a Service has, and what port each of them answers on."""
