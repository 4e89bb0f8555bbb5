"""syncws inside other people's servers and frameworks."""
