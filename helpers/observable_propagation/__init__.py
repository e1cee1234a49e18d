"""The second paper: observables pulled back to feature vectors, with no data."""
