"""The site: `make docs` builds it from the pages where they lie, into `site/`, without a network.

The root of the sources is the repository, so README.md, config/README.md and benchmarks/ are pages
of the site too, said once, and the links that GitHub follows are those of the site.
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "docs")]

import messages  # noqa: E402 (beside this file)

import sbr_core  # noqa: E402

project = "sbr_core"
author = "the authors of sbr_core"
version = release = sbr_core.__version__
language = "en"
smartquotes = False  # messages are searched for as the terminal shows them
highlight_language = "none"  # blocks without a language are commands, not Python
default_role = "code"  # what docstrings have between single backticks

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "config/README.md",
    "benchmarks/*.md",
    "docs/*.md",
]
exclude_patterns = [".*", "data", "results", "runs", "site", "*.egg-info"]
root_doc = "docs/index"
templates_path = ["_templates"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.xref_ambiguous"]

autodoc_mock_imports = ["ants", "SimpleITK", "torch", "nilearn", "statsmodels"]
"""Heavy libraries: a signature and a docstring need none of them."""
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "sbr_core"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "to_start.html"}
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}


def _with_messages(app, docname: str, source: list[str]) -> None:
    """Put the messages that the code contains now where the page wants them."""
    if docname == "docs/messages":
        source[0] = source[0].replace(messages.PLACE, messages.as_markdown(REPOSITORY))


def setup(app) -> None:
    app.connect("source-read", _with_messages)
