"""Scores: additive counts first, scores second, so parts of a test set can be added in any order."""
