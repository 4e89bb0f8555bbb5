"""Applications of frameworks that the tests have real servers serve, and how those are started."""
