"""Formats: one file of frames, or one folder of them, read by number."""
