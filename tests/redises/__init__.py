"""Redis servers of the tests: a real one that can be killed, and one that a test plays itself."""
