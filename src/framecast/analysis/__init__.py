"""Analysis: what forecasts are worth and what they cost."""
