"""Data sets: each one file that turns files or a generator into clips scaled to [0, 1]."""
