"""Sphinx: `make docs`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python"))

project = "headloom"
author = "the authors of headloom"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
templates_path = []
html_theme = "furo"
html_title = "headloom"
html_static_path = ["_static"]
html_css_files = ["headloom.css"]
html_copy_source = False
highlight_language = "text"  # of fences that name no language
pygments_style = "friendly"
pygments_dark_style = "github-dark"
myst_heading_anchors = 3
nitpicky = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False


def to_pages(app, docname, source):
    """Links to Markdown outside this folder, which a reader of the repository follows, become links to the
    pages that include it."""
    up = "../" * docname.count("/")
    slices = r"\]\((?:\.\./)+headloom/mechanisms/(\w+)/README\.md\)"
    source[0] = re.sub(slices, rf"]({up}slices/\1.md)", source[0])
    source[0] = re.sub(r"\]\((?:\.\./)+CONTRIBUTING\.md\)", f"]({up}contributing.md)", source[0])


def setup(app):
    app.connect("source-read", to_pages)
