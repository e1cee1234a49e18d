"""How fast the helpers are beside plain ways of doing the same, on the machine at hand: ``python -m benchmarks.run``."""
