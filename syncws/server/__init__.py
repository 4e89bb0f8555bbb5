"""The server's side: listeners, routes and callers."""
