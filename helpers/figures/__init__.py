"""Figures and controls that more than one chapter draws."""
