"""Camera paths through places that were recorded, and the film along one."""

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
from eugen_viewer.viewer_cameras import Eye


@dataclass
class CameraPath:
    """Places in their order; the camera passes through all of them, smoothly and at even times.

    Attributes:
        eyes: the places.
    """

    eyes: list[Eye] = field(default_factory=list)

    def along(self, frames: int) -> list[Eye]:
        """Where the camera is in each frame of a film, by Kochanek-Bartels splines as in nerfstudio's viewer.

        Raises:
            ConfigError: fewer than two places, or than two frames.
        """
        if len(self.eyes) < 2:
            raise ConfigError(f"a camera path takes at least two places, and {len(self.eyes)} are recorded: add more")
        if frames < 2:
            raise ConfigError(f"a film along a path has at least 2 frames, not {frames}")
        turns = [vtf.SO3.from_matrix(eye.pose[:, :3].numpy()).wxyz for eye in self.eyes]
        quaternions = [splines.quaternion.UnitQuaternion.from_unit_xyzw(np.roll(wxyz, -1)) for wxyz in turns]
        turn = splines.quaternion.KochanekBartels(quaternions, tcb=(0.0, 0.0, 0.0), endconditions="natural")
        numbers = np.array([[*eye.pose[:, 3].tolist(), eye.fov, eye.time] for eye in self.eyes])
        place = splines.KochanekBartels(numbers, tcb=(0.0, 0.0, 0.0), endconditions="natural")
        eyes = []
        for t in np.linspace(0, len(self.eyes) - 1, frames):
            q, values = turn.evaluate(float(t)), np.asarray(place.evaluate(float(t)))
            rotation = vtf.SO3(np.array([q.scalar, *q.vector])).as_matrix()
            pose = torch.from_numpy(np.concatenate([rotation, values[:3, None]], axis=1))
            eyes.append(Eye(pose, float(values[3]), self.eyes[0].aspect, float(np.clip(values[4], 0, 1))))
        return eyes

    def document(self, height: int, width: int, frames: int, seconds: float) -> dict[str, object]:
        """The path as ns-render camera-path takes it."""
        eyes = self.along(frames)
        bottom = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
        return {
            "camera_type": "perspective",
            "render_height": height,
            "render_width": width,
            "fps": frames / seconds,
            "seconds": seconds,
            "camera_path": [
                {
                    "camera_to_world": torch.cat([eye.pose.double(), bottom]).flatten().tolist(),
                    "fov": float(np.degrees(eye.fov)),
                    "aspect": width / height,
                    "render_time": eye.time,
                }
                for eye in eyes
            ],
        }


def new_name(folder: Path, what: str, ending: str) -> Path:
    """A file name of its own, by the present time."""
    stem = f"{what}-{datetime.now():%Y-%m-%d_%H%M%S}"
    path, number = folder / f"{stem}{ending}", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}{ending}", number + 1
    return path


def save_picture(picture: Image8, path: Path) -> None:
    """Writes a PNG file; raises `RunError` where it cannot be written."""
    with new_file(path) as partial:
        Image.fromarray(picture).save(partial, format="PNG")


def save_path(path: CameraPath, file: Path, height: int, width: int, frames: int, seconds: float) -> None:
    """Writes a camera path for ns-render; raises `RunError` where it cannot be written."""
    with new_file(file) as partial:
        partial.write_text(json.dumps(path.document(height, width, frames, seconds), indent=1), encoding="utf8")


def film(
    eyes: Sequence[Eye], picture_of: Callable[[Eye], Image8 | None], path: Path, fps: float,
    progress: Callable[[float, str], None],
) -> None:  # fmt: skip
    """Renders pictures and writes them as a film.

    Raises:
        RunError: a picture cannot be rendered, or the film cannot be written.
    """
    check_film_output(path, overwrite=False)
    pictures = []
    for number, eye in enumerate(eyes):
        picture = picture_of(eye)
        if picture is None:
            raise RunError("what is shown was changed while the film was rendered: start it again")
        pictures.append(picture)
        progress((number + 1) / (len(eyes) + 1), f"frame {number + 1} of {len(eyes)}")
    write_film(pictures, path, fps=fps)
