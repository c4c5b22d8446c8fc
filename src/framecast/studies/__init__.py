"""Studies: models x seeds, trained and tested alike, resumable, ending in tables beside the published numbers."""
