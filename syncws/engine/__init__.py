"""Threads and sockets: one I/O thread that owns the sockets, workers that run callbacks.

This room knows no service and no route.
"""
