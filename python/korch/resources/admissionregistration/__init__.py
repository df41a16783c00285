"""Kinds of admissionregistration.k8s.io: whom the server asks before it writes, and the policies that it evaluates itself."""
