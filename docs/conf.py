"""Sphinx settings: MyST pages, furo, and the reference from the docstrings."""

from importlib import metadata

import numpy.typing as npt
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

project = "Voxlift"
author = "The Voxlift developers"
copyright = "The Voxlift developers, Apache License 2.0"
release = metadata.version("voxlift")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
# Docstrings put code in single backticks.
default_role = "code"

html_theme = "furo"
html_title = f"Voxlift {release}"
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "model_config",
}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Shape", "notes_style"), ("Source", "notes_style")]


def without_annotations(text: str) -> str:
    """Shorten each `Annotated[TYPE, ...]` of a signature to `TYPE`: the bounds are in the text."""
    opening = "Annotated["
    while opening in text:
        start = text.index(opening)
        depth, comma = 0, None
        for end in range(start + len(opening), len(text)):
            if text[end] == "]" and depth == 0:
                break
            depth += (text[end] in "[(") - (text[end] in "])")
            if text[end] == "," and depth == 0 and comma is None:
                comma = end
        text = text[:start] + text[start + len(opening) : comma] + text[end + 1 :]
    return text


def process_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Shorten the signatures that autodoc shows."""
    if signature is not None:
        array_like = stringify_annotation(npt.ArrayLike, "smart")
        signature = without_annotations(signature).replace(array_like, "ArrayLike")
    return signature, returns


def setup(app: Sphinx) -> None:
    """Connect to autodoc."""
    app.connect("autodoc-process-signature", process_signature)
