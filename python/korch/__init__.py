"""korch: Kubernetes, small, fast, embeddable and understandable."""

__version__ = "0.1.0"

# The Kubernetes release whose API korch serves.
KUBERNETES_VERSION = "v1.37.2"
