"""Live controls for a notebook with a kernel."""
