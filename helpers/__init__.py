"""Helpers of the book: load a model, intervene on its activations, fit, evaluate, plot. One idea a module."""
