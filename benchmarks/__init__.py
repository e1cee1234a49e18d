"""Benchmarks of the helpers: ``make bench`` and ``make gpu``."""
