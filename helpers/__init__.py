"""Helpers of the book: load a model, intervene on it, fit, evaluate, plot. One idea a module."""
