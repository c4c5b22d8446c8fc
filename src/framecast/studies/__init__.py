"""Studies: models x seeds, trained and tested alike, resumable, ending in tables beside the published numbers."""

from framecast.studies.conducting import study

__all__ = ["study"]
