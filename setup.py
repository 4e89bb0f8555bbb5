"""Packaging of syncws; the version is that of syncws/__init__.py."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Take the version from the source, so that nothing needs importing."""
    source = (ROOT / "syncws" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise RuntimeError("syncws/__init__.py has no line __version__ = '...'")
    return found.group(1)


TEST = [
    "aiohttp",
    "hypothesis",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "selenium",
    "trustme",
    "websocket-client",
    "websockets",
]
COV = ["pytest-cov"]
DEV = [*TEST, *COV, "mypy", "ruff", "tox"]

setup(
    name="syncws",
    version=read_version(),
    description="WebSocket server and client for threaded Python: thousands of connections "
    "on a few threads, with plain blocking code on top",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(where=str(ROOT), include=["syncws", "syncws.*"]),
    package_data={"syncws": ["py.typed"]},
    zip_safe=False,
    python_requires=">=3.10",
    install_requires=["wsproto>=1.3"],
    extras_require={"test": TEST, "cov": COV, "dev": DEV},
    keywords=["websocket", "threads", "synchronous", "server", "client", "rfc6455"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP",
        "Topic :: Software Development :: Libraries :: Python Modules",
        "Typing :: Typed",
    ],
)
