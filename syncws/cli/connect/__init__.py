"""The command `syncws connect`."""
