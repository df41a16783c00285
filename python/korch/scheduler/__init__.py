"""The scheduling queue and the binding loop around the Rust engine."""
