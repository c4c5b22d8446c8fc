"""Makers of miniature files in the exact formats of published data sets and of users' own."""
