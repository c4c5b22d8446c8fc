"""Training: one Lightning task for every forecaster, its losses, its order of data, its run folder."""
