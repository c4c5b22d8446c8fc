"""Data: from files or a generator to clips scaled to [0, 1]."""
