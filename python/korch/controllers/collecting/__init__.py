"""What the collectors share: which kinds are served, and who owns whom."""
