"""The WebSocket protocol without sockets or threads: bytes in, events out.

Only this room knows wsproto and h11.
"""
