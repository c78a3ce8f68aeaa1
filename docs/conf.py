"""How Sphinx builds this documentation as a site: ``make docs``.

The source folder is the root of the repository. So a link between two pages is the same on the
site and in the files, README.md and SECURITY.md included.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "smsqueue"
author = "the smsqueue authors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "examples/*/README.md"]
exclude_patterns = [".*", "build", "dist", "benchmarks", "smsqueue", "tests"]
templates_path = ["_templates"]

# Headings get the anchors that GitHub gives them.
myst_heading_anchors = 4
# Mermaid would need JavaScript from elsewhere: the site shows a diagram's source, GitHub draws it.
suppress_warnings = ["misc.highlighting_failure"]

# The Python reference is made of docstrings in Google style. Sphinx's -n stays off: signatures
# name types of other packages, and docstrings name modules that are not part of the reference.
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
default_role = "code"

html_theme = "furo"
html_title = f"smsqueue {release}"
html_additional_pages = {"index": "redirect.html"}
html_copy_source = False
html_show_copyright = False
