"""`syncws bench`: puts load on a server and measures it."""
