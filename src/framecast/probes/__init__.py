"""Probes: what goes on inside a model, its receptive fields and the outputs of its layers."""
