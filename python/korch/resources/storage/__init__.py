"""Kinds of storage.k8s.io: classes of storage, drivers, attachments."""
