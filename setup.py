"""Packaging of syncws; the version is that of syncws/__init__.py."""

import re
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Take the version from the source, so that nothing needs importing."""
    source = (ROOT / "syncws" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise RuntimeError("syncws/__init__.py has no line __version__ = '...'")
    return found.group(1)


# One build of the extension serves every CPython from 3.11 on. The stable ABI
# of 3.10 lacks the buffer protocol, and free-threaded builds have none.
STABLE_ABI = (
    sys.implementation.name == "cpython"
    and sys.version_info >= (3, 11)
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
)
SPEEDUPS = Extension(
    "syncws._speedups",
    ["syncws/_speedups.c"],
    optional=True,  # without a compiler syncws does the same in Python
    py_limited_api=STABLE_ABI,
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE_ABI else [],
)

PROXY = ["python-socks>=3"]  # which takes a socket that is connected already
REDIS = ["redis>=5.2"]
CLI = ["click>=8.1", "prompt_toolkit>=3.0.36", "rich>=13"]
FLASK = ["flask>=2.3"]
PROMETHEUS = ["prometheus-client>=0.18"]
DJANGO = ["django>=4.2.1"]  # 4.2.0 takes things out of a request that is copied
TEST = [
    *REDIS,
    *PROXY,
    *CLI,
    *FLASK,
    *DJANGO,
    *PROMETHEUS,
    "aiohttp",
    "gevent",
    "gunicorn",
    "hypothesis",
    "opentelemetry-api",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "pyuwsgi",
    "requests",
    "selenium",
    "trustme",
    "waitress",
    "websocket-client",
    "websockets",
]
EXAMPLES = ["flask", "requests"]
COV = ["pytest-cov"]
BENCH = [
    "aiohttp",
    "gevent",
    "gevent-websocket",
    "matplotlib",
    "picows",
    "simple-websocket",
    "socketify",
    "uvloop",
    "websocket-client",
    "websockets",
    "werkzeug",
]
FUZZ = [
    # It has wheels for these only; elsewhere mutations go by chance.
    "atheris; python_version < '3.15' and platform_system == 'Linux' "
    "and platform_machine == 'x86_64' and implementation_name == 'cpython'",
]
DOCS = ["furo", "myst-parser", "sphinx>=7", "sphinx-copybutton"]
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
    ext_modules=[SPEEDUPS],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
    zip_safe=False,
    python_requires=">=3.10",
    install_requires=["wsproto>=1.3"],
    entry_points={
        "console_scripts": ["syncws = syncws.cli:main"],
        "pytest11": ["syncws = syncws.testing.plugin"],
    },
    extras_require={
        "cli": CLI,
        "django": DJANGO,
        "flask": FLASK,
        "prometheus": PROMETHEUS,
        "proxy": PROXY,
        "redis": REDIS,
        "examples": EXAMPLES,
        "test": TEST,
        "cov": COV,
        "bench": BENCH,
        "fuzz": FUZZ,
        "docs": DOCS,
        "dev": DEV,
    },
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
