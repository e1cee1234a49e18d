"""A sweep runs a function over settings and keeps each result."""
