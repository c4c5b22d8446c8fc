"""Data sets: one file each, with its source, licence and citation."""
