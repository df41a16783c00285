"""Subresources with a body or a rule of their own. Each module says what it reads and changes of its parent."""
