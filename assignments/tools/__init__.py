"""Tools that make the student versions of the problem sets and grade what is handed in."""
