"""The loops over bytes: those of the C extension, or else their twins in Python."""

from __future__ import annotations

from ..native import extension
from .plain import Payload, frame, mask, read_frames

__all__ = ["Payload", "frame", "mask", "read_frames"]

if extension is not None:
    Payload = extension.Payload  # type: ignore[misc]
    frame = extension.frame
    mask = extension.mask
    read_frames = extension.read_frames
