"""Weights on disk: save and load with a checksum, import published checkpoints, export."""
