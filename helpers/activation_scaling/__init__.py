"""The first paper: scalars on activations, learned so that a model swaps two answers."""
