"""Who is asking: client certificates, join tokens, service account tokens, and the anonymous."""
