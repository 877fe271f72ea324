"""Pictures that a page saves, and what Python renders of the same view."""

from __future__ import annotations

import numpy as np
from pages import Opened
from PIL import Image

from eugen_nerf.core import PinholeCamera
from eugen_nerf.core.bundles.bundled_field import BundledField


def saved_picture(tab: Opened) -> np.ndarray:
    """The picture in all of its pixels, `[height, width, 3]` in [0, 1]."""
    with tab.page.expect_download(timeout=120_000) as download:
        tab.page.get_by_role("button", name="Save the picture").evaluate("(button) => button.click()")
    return np.asarray(Image.open(download.value.path()).convert("RGB")) / 255


def drawn_by_python(field: BundledField, image: np.ndarray) -> np.ndarray:
    """The first test view, fitted into the middle of an image of some size."""
    view, (height, width) = field.cameras[0], image.shape[:2]
    scale = min(width / view.width, height / view.height)
    centre = ((width - view.width * scale) / 2, (height - view.height * scale) / 2)
    camera = PinholeCamera(
        view.pose,
        view.fx * scale,
        view.fy * scale,
        centre[0] + view.cx * scale,
        centre[1] + view.cy * scale,
        width,
        height,
        view.time,
    )
    return field.render(camera).colour.double().clamp(0, 1).numpy()
