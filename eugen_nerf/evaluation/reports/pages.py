"""HTML pages that need no other file and no network, from the templates beside this module."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from eugen_nerf.methods.runs.image_metrics import Image8


def render_page(template: str, *, title: str, heading: str = "", **values: Any) -> str:
    """The text of a page. Every value is escaped, as names of runs and texts of files are; a plot is `Markup`.

    Args:
        template: a file of `templates/`.
        title: of the window.
        heading: of the page; the title by default.
        values: what the template names.
    """
    return _TEMPLATES.get_template(template).render(title=title, heading=heading, **values)


def png_data_uri(image: Image8) -> str:
    """An image, uint8 [H, W, 3], as the `data:` address of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return png_bytes_uri(buffer.getvalue())


def png_bytes_uri(content: bytes) -> str:
    """The content of a PNG file as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"png": lambda image: Markup(png_data_uri(image)), "json": json.dumps}  # base64 has no `<` or `"`
