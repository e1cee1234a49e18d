"""The course assignments: sources with solutions and hidden tests, rubrics, and the tools that build and grade them."""
