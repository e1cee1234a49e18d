"""The course: problem sets with solutions and hidden tests, rubrics, checks and tools."""
