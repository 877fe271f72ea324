"""What eugen-view writes on clicks, without a browser: `python viewer_writes.py CONFIG`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from eugen_nerf.cli.support.common import run_cli
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.methods.runs.loading import load_run
from eugen_viewer.panels.compression import LiveCompression
from eugen_viewer.recording import CameraPath, record_film, save_image, save_path, unused_path
from eugen_viewer.viewer_cameras import Viewpoint


def write_all(config: Path, folder: Path) -> None:
    """A screenshot, a camera path, a film, and "Save as run"."""
    image = np.zeros((16, 24, 3), dtype=np.uint8)
    pose = torch.eye(4, dtype=torch.float64)[:3]
    path = CameraPath([Viewpoint(pose, 0.8, 1.5), Viewpoint(pose + 0.1, 0.8, 1.5)])
    save_image(image, unused_path(folder, "screenshot", ".png"))
    save_path(path, unused_path(folder, "path", ".json"), 16, 24, 4, 1.0)
    record_film(path.along(3), lambda _: image, unused_path(folder, "film", ".mp4"), 8.0, lambda *_: None)
    settings = DistillConfig(ray_fraction=1.0, max_rays=400, output_dir=Path("new"))
    compression = LiveCompression(load_run(config, device="cpu"), settings)
    compression.gather()
    compression.set(compression.widths_at_speedup(1.5))
    compression.save()


run_cli(lambda: write_all(Path(sys.argv[1]), Path("captures")))
