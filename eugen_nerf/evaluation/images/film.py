"""Frames along time and along a camera path, and what they are kept as: a film, a folder of images, a strip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from PIL import Image
from rich.console import Console
from torch import Tensor

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.evaluation.images.view_rendering import eval_dataset, render_rgb
from eugen_nerf.evaluation.output_paths import CameraPath
from eugen_nerf.evaluation.stage_lines import counted
from eugen_nerf.methods.runs.image_metrics import Image8, quantise
from eugen_nerf.methods.runs.loading import Run

SPIRAL_RADIUS = 0.15
"""Of the distance to the scene's centre."""


def film_cameras(
    camera: Cameras, centre: Tensor, path: CameraPath, frames: int, times: tuple[float, float] | None
) -> Cameras:
    """Cameras of a film's frames.

    Args:
        camera: one camera, `[1]`.
        centre: `[3]`, what an orbit goes round and a spiral looks at.
        path: fixed; orbit, one turn about the vertical; spiral, a small circle across the line of sight.
        frames: number of frames.
        times: of the first and the last frame, in [0, 1]; None for scenes without time.

    Returns:
        Cameras `[frames]` on the CPU, times evenly spaced.

    Raises:
        ConfigError: no frame, or times outside [0, 1].
    """
    if frames < 1:
        raise ConfigError(f"a film has at least one frame, not {frames}")
    if times is not None and not all(0 <= t <= 1 for t in times):
        raise ConfigError(f"times {times[0]:g} to {times[1]:g} are outside [0, 1], where a dynamic scene is trained")
    camera = camera.to("cpu")
    pose, centre = camera.camera_to_worlds[0].double(), centre.detach().cpu().double()
    angles = [2 * math.pi * i / frames for i in range(frames)]
    move = {"fixed": lambda pose, *_: pose, "orbit": _turned, "spiral": _circled}[path]
    poses = torch.stack([move(pose, centre, angle) for angle in angles]).float()
    same = {
        name: None if (value := getattr(camera, name)) is None else value.expand(frames, value.shape[-1]).clone()
        for name in ("fx", "fy", "cx", "cy", "width", "height", "distortion_params", "camera_type")
    }
    along = None if times is None else torch.linspace(*times, frames)[:, None]
    return Cameras(camera_to_worlds=poses, times=along, **same)  # type: ignore[arg-type]


def _turned(pose: Tensor, centre: Tensor, angle: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], dtype=pose.dtype)
    return torch.cat([turn @ pose[:, :3], (turn @ (pose[:, 3] - centre) + centre)[:, None]], dim=1)


def _circled(pose: Tensor, centre: Tensor, angle: float) -> Tensor:
    before = centre - pose[:, 3]
    # from 0 on, so that the first frame is the view itself
    across = (math.cos(angle) - 1) * pose[:, 0] + math.sin(angle) * pose[:, 1]
    position = pose[:, 3] + SPIRAL_RADIUS * before.norm() * across
    after = centre - position
    a, b = before / before.norm(), after / after.norm()
    # the smallest rotation that takes one line of sight to the other (Rodrigues)
    v = torch.linalg.cross(a, b)
    skew = torch.zeros(3, 3, dtype=pose.dtype)
    skew[0, 1], skew[0, 2], skew[1, 2] = -v[2], v[1], -v[0]
    skew = skew - skew.T
    turn = torch.eye(3, dtype=pose.dtype) + skew + skew @ skew / (1 + a @ b)
    return torch.cat([turn @ pose[:, :3], position[:, None]], dim=1)


def scene_centre(run: Run) -> Tensor:
    """Middle of the run's scene box, `[3]`."""
    return run.model.scene_box.get_center()


def has_times(run: Run) -> bool:
    """Whether the run's evaluation views have times."""
    return eval_dataset(run).cameras.times is not None


def render_film(run: Run, cameras: Cameras, *, label: str = "frames", console: Console | None = None) -> list[Image8]:
    """The cameras' images, one after the other, and how far that is on `console` (standard error by default)."""
    images = []
    with counted(f"rendering {label}", len(cameras), console) as done:
        for index in range(len(cameras)):
            images.append(quantise(render_rgb(run, cameras[index : index + 1].to(run.pipeline.device))))
            done()
    return images


def image_strip(images: Sequence[Image8], gap: int = 2) -> Image8:
    """Images of one size side by side, white between them."""
    white = np.full((images[0].shape[0], gap, 3), 255, dtype=np.uint8)
    parts = [part for image in images for part in (image, white)]
    return np.concatenate(parts[:-1], axis=1)


def write_film(images: Sequence[Image8], output: Path, *, fps: float) -> None:
    """Writes frames: all of them, or none.

    Args:
        images: frames of one size.
        output: what its suffix says: .mp4, .gif, .png for a strip, none for a folder of PNG files.
        fps: frames per second.

    Raises:
        RunError: the file or folder cannot be written, or there is no encoder for films.
    """
    try:
        with atomic_path(output, replace=True) as partial:  # `check_film_output` has refused what must stay
            _WRITERS[output.suffix.lower()](images, partial, fps)
    except OSError as error:
        raise RunError(f"cannot write {output}: {error.strerror or error}") from error


def _write_mp4(images: Sequence[Image8], path: Path, fps: float) -> None:
    try:
        import av  # nerfstudio brings it
    except ImportError as error:
        raise RunError(f"an .mp4 needs PyAV ({error}): pip install av, or write a .gif or a folder") from error
    height, width = images[0].shape[:2]
    # both encoders halve the resolution of colours: sides must be even
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    codec = next((name for name in ("libx264", "mpeg4") if name in av.codecs_available), None)
    if codec is None:
        raise RunError("PyAV has no encoder for .mp4 here: write a .gif or a folder")
    with iio.imopen(path, "w", plugin="pyav") as file:
        file.init_video_stream(codec, fps=fps)
        for image in images:
            file.write_frame(np.pad(image, pad, mode="edge"))


def _write_gif(images: Sequence[Image8], path: Path, fps: float) -> None:
    first, *others = map(Image.fromarray, images)
    first.save(path, format="GIF", save_all=True, append_images=others, duration=1000 / fps, loop=0)


def _write_strip(images: Sequence[Image8], path: Path, fps: float) -> None:
    Image.fromarray(image_strip(images)).save(path, format="PNG")


def _write_folder(images: Sequence[Image8], path: Path, fps: float) -> None:
    path.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(path / f"{number:05d}.png", format="PNG")


_WRITERS = {".mp4": _write_mp4, ".gif": _write_gif, ".png": _write_strip, "": _write_folder}


def frames_over_time(
    runs: dict[str, Run], view: int, count: int, console: Console | None = None
) -> tuple[list[float], dict[str, list[Image8]]]:
    """One view at `count` times from 0 to 1: the times, and images by run; nothing where a run's data have none."""
    if not count or not all(map(has_times, runs.values())):
        return [], {}
    times = torch.linspace(0, 1, count).tolist()
    frames = {}
    for name, run in runs.items():
        camera = eval_dataset(run).cameras[view : view + 1]
        cameras = film_cameras(camera, scene_centre(run), "fixed", count, (0.0, 1.0))
        frames[name] = render_film(run, cameras, label=f"{name} over time", console=console)
    return times, frames
