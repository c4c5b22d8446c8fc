"""Formats: readers of files that hold frames."""
