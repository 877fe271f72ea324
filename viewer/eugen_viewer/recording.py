"""Camera paths through recorded viewpoints, and films along them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import splines
import splines.quaternion
import torch
import viser.transforms as vtf
from PIL import Image

from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.evaluation.images.film import write_film
from eugen_nerf.evaluation.output_paths import check_film_output
from eugen_nerf.methods.runs.image_metrics import Image8
from eugen_nerf.surfaces.files import new_file
from eugen_viewer.viewer_cameras import Viewpoint


@dataclass
class CameraPath:
    """A smooth camera path through viewpoints, at equal time intervals.

    Attributes:
        viewpoints: in order.
    """

    viewpoints: list[Viewpoint] = field(default_factory=list)

    def along(self, frames: int) -> list[Viewpoint]:
        """The viewpoint of each frame of a film, by Kochanek-Bartels splines as in nerfstudio's viewer.

        Raises:
            ConfigError: fewer than two viewpoints, or fewer than two frames.
        """
        if len(self.viewpoints) < 2:
            raise ConfigError(f"a camera path needs at least two cameras, and it has {len(self.viewpoints)}: add more")
        if frames < 2:
            raise ConfigError(f"a film along a path has at least 2 frames, not {frames}")
        turns = [vtf.SO3.from_matrix(viewpoint.pose[:, :3].numpy()).wxyz for viewpoint in self.viewpoints]
        quaternions = [splines.quaternion.UnitQuaternion.from_unit_xyzw(np.roll(wxyz, -1)) for wxyz in turns]
        turn = splines.quaternion.KochanekBartels(quaternions, tcb=(0.0, 0.0, 0.0), endconditions="natural")
        numbers = np.array([[*each.pose[:, 3].tolist(), each.fov, each.time] for each in self.viewpoints])
        place = splines.KochanekBartels(numbers, tcb=(0.0, 0.0, 0.0), endconditions="natural")
        viewpoints = []
        for t in np.linspace(0, len(self.viewpoints) - 1, frames):
            q, values = turn.evaluate(float(t)), np.asarray(place.evaluate(float(t)))
            rotation = vtf.SO3(np.array([q.scalar, *q.vector])).as_matrix()
            pose = torch.from_numpy(np.concatenate([rotation, values[:3, None]], axis=1))
            viewpoints.append(
                Viewpoint(pose, float(values[3]), self.viewpoints[0].aspect, float(np.clip(values[4], 0, 1)))
            )
        return viewpoints

    def document(self, height: int, width: int, frames: int, seconds: float) -> dict[str, object]:
        """The path in the format of ns-render camera-path."""
        viewpoints = self.along(frames)
        bottom = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
        return {
            "camera_type": "perspective",
            "render_height": height,
            "render_width": width,
            "fps": frames / seconds,
            "seconds": seconds,
            "camera_path": [
                {
                    "camera_to_world": torch.cat([viewpoint.pose.double(), bottom]).flatten().tolist(),
                    "fov": float(np.degrees(viewpoint.fov)),
                    "aspect": width / height,
                    "render_time": viewpoint.time,
                }
                for viewpoint in viewpoints
            ],
        }


def unused_path(folder: Path, what: str, ending: str) -> Path:
    """An unused file name with the current time."""
    stem = f"{what}-{datetime.now():%Y-%m-%d_%H%M%S}"
    path, number = folder / f"{stem}{ending}", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}{ending}", number + 1
    return path


def save_image(image: Image8, path: Path) -> None:
    """Writes a PNG file; raises `RunError` if it cannot be written."""
    with new_file(path) as partial:
        Image.fromarray(image).save(partial, format="PNG")


def save_path(path: CameraPath, file: Path, height: int, width: int, frames: int, seconds: float) -> None:
    """Writes a camera path for ns-render; raises `RunError` if it cannot be written."""
    with new_file(file) as partial:
        partial.write_text(json.dumps(path.document(height, width, frames, seconds), indent=1), encoding="utf8")


def record_film(
    viewpoints: Sequence[Viewpoint], image_of: Callable[[Viewpoint], Image8 | None], path: Path, fps: float,
    progress: Callable[[float, str], None],
) -> None:  # fmt: skip
    """Renders images and writes them as a film.

    Raises:
        RunError: an image cannot be rendered, or the film cannot be written.
    """
    check_film_output(path, overwrite=False)
    images = []
    for number, viewpoint in enumerate(viewpoints):
        image = image_of(viewpoint)
        if image is None:
            raise RunError("the displayed runs changed while the film was rendered: start it again")
        images.append(image)
        progress((number + 1) / (len(viewpoints) + 1), f"frame {number + 1} of {len(viewpoints)}")
    write_film(images, path, fps=fps)
