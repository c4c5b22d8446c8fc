"""Torture: what framecast promises when something fails, each promise with a check that tries to break it."""
