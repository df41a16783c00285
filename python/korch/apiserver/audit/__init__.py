"""The audit log: who asked what, when, whether he might, and what came of it. `policy` says what is told, `record` tells it of one
request, `log_file` keeps it, `client` does the same for what this process asks of itself."""
