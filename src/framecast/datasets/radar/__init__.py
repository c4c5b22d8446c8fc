"""Radar: the formats of rain maps, one map a file or many, and what their data sets share."""
