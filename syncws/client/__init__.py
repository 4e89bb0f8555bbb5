"""The client's side: connecting, and the client itself."""
