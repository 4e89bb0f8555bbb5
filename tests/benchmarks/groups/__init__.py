"""Deliveries of groups, in one process and over several: `python -m tests.benchmarks.groups`."""
