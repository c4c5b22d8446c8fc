"""Models: the stack of cells, the roll-out, the forecasters and the baselines."""
