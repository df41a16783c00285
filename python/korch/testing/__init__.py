"""The simulator: whole clusters on virtual time, shipped for users who test operators and policies."""
