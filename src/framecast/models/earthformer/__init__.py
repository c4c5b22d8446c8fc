"""Earthformer: a pyramid of cuboid attention that forecasts all frames at once."""
