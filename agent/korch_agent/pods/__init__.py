"""A pod on this node: what to do next (`plan`), doing it (`worker`), and what to report (`status`)."""
