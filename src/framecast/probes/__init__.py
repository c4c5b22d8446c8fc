"""Probes: receptive fields and outputs of layers."""
