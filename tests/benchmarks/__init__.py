"""Benchmarks against other WebSocket libraries: `python -m tests.benchmarks`."""
