"""Kinds of admissionregistration.k8s.io: who else is asked before something is stored, and rules that need nobody to be asked."""
