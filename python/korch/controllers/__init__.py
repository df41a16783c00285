"""The control loops, one file each, level-triggered, seeing the cluster only through the client."""
