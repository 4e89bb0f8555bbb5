"""How Sphinx builds these pages: `tox -e docs`, or `sphinx-build -W docs docs/_build`."""

from __future__ import annotations

import re
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]

project = "syncws"
author = "the authors of syncws"
project_copyright = author
(release,) = re.findall(
    r'^__version__ = "([^"]+)"$', (ROOT / "syncws" / "__init__.py").read_text(), re.MULTILINE
)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"syncws {release}"
html_show_copyright = False
html_static_path: list[str] = []

# Links to headings are those of code hosts, so the pages work there too.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_use_rtype = False
napoleon_use_ivar = True

# `$ command` is copied without what comes before it.
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

# Links out of docs/, and what they lead to here.
_ELSEWHERE = {
    "../README.md": "index.md",
    "../README.md#install": "first-service.md#install",
    "../SECURITY.md": "reporting.md",
    "../CHANGES.md": "changes.md",
    "../LICENSE": "index.md",
}

# Pages that stand outside of docs/ themselves.
_WHOLE = {"reporting": "SECURITY.md", "changes": "CHANGES.md"}


def _redirect(app: Sphinx, name: str, source: list[str]) -> None:
    if name in _WHOLE:
        text = (ROOT / _WHOLE[name]).read_text(encoding="utf-8")
        text = text.replace("# Security\n", "# Reporting a vulnerability\n", 1)
        source[0] = text.replace("](docs/", "](").replace("](CHANGES.md)", "](changes.md)")
    for target, page in _ELSEWHERE.items():
        source[0] = source[0].replace(f"]({target})", f"]({page})")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_lexer("haproxy", TextLexer)
    app.connect("source-read", _redirect)
