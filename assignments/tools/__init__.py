"""Build, publish and grade the problem sets. Never part of the wheel or of what students get; nbgrader does the grading."""
