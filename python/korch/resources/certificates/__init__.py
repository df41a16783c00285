"""Kinds of certificates.k8s.io: wishes for certificates, and whom to trust."""
