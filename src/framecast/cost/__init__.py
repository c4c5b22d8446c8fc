"""Cost: parameters, multiply-accumulates, memory and time of a model, counted or measured, and the paper's figures."""
