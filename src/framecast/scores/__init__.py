"""Scores: additive counts, then scores of the counts, so that parts of a test set add up in any order."""
