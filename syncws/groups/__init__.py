"""Many connections as one."""
