"""Django in the process of the tests, which can be set up once only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = ["django_settings"]


@contextlib.contextmanager
def django_settings(**options: Any) -> Iterator[None]:
    """Django with these settings, until the block ends."""
    import django
    from django.conf import settings
    from django.test import override_settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None, SECRET_KEY="not this one")
        django.setup()
    with override_settings(**options):
        yield
