"""Archives: data looked at before a training, and brought into one Zarr."""
