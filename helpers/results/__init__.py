"""Numbers with their uncertainty, and where they go: records, claims, glued values."""
