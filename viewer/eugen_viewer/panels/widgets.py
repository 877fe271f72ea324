"""Elements that several panels share: inline images, colour bars, and the status of background jobs."""

from __future__ import annotations

import base64
import io

import numpy as np
import viser
from PIL import Image

from eugen_nerf.methods.runs.image_metrics import Image8
from eugen_viewer.image_composition import map_colours
from eugen_viewer.panels.readout import escape_markdown


def inline_image(image: Image8, description: str) -> str:
    """Markdown with an embedded image, as wide as the panel."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    code = base64.b64encode(buffer.getvalue()).decode()
    # an image in Markdown's own syntax would be 240 pixels wide at most
    style = '{{width: "100%", borderRadius: 4}}'
    return f'<img alt="{description}" src="data:image/png;base64,{code}" style={style} />'


def colour_bar(name: str, low: str, high: str) -> str:
    """Markdown with a colour scale and its end values."""
    ramp = np.repeat(np.linspace(0, 1, 256)[None], 14, axis=0)
    return f"{inline_image(map_colours(ramp, name), 'scale')}\n\n{low} ... {high}"


class JobStatus:
    """Status of background jobs above all tabs: a line for each job, and a progress bar.

    Args:
        server: viser's.
    """

    def __init__(self, server: viser.ViserServer) -> None:
        self._text = server.gui.add_markdown("", order=-5.0)
        self._bar = server.gui.add_progress_bar(0.0, visible=False, order=-4.0)
        self.lines: dict[str, str] = {}
        """The last text of each job, by its title."""

    def report(self, title: str, share: float | None, line: str) -> None:
        """Shows the text of a job; an empty text is hidden, and the bar is hidden at a share of 1."""
        self.lines[title] = line
        shown = {name: escape_markdown(text) for name, text in self.lines.items() if text}
        self._text.content = "\n\n".join(f"**{name}**: {text}" for name, text in shown.items())
        self._bar.visible = share is None or share < 1
        if share is not None:
            self._bar.value = 100.0 * min(max(share, 0.0), 1.0)
