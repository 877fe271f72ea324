"""A bundle opened as a run: what shows and renders runs takes it, without config, checkpoint or data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.model_components.scene_colliders import NearFarCollider
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.pipelines.base_pipeline import Pipeline
from torch import Tensor, nn

from eugen_nerf.core import BundleError, load_bundle, plan_bundle
from eugen_nerf.core.bundles.bundle_files import WEIGHTS
from eugen_nerf.core.bundles.bundled_field import RAYS_AT_ONCE, BundledField
from eugen_nerf.core.bundles.bundled_views import BundledView
from eugen_nerf.core.cameras.camera_images import RenderedPixels
from eugen_nerf.core.cameras.pinhole_camera import PinholeCamera
from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.methods.graph_model import FAST_RAYS
from eugen_nerf.methods.rendering.core_threads import render_side_by_side
from eugen_nerf.methods.rendering.grid_rendering import rays_of
from eugen_nerf.methods.runs.loading import Run, usable_device


def open_bundle(path: Path, *, device: str | torch.device | None = None) -> Run:
    """A bundle as a run in evaluation mode: its test views are those of the bundle, without photographs.

    Args:
        path: the bundle's folder.
        device: where the model goes; None takes CUDA where there is a GPU, else the CPU.

    Raises:
        BundleError: as `load_bundle`, and for a bundle that cannot be rendered.
        RunError: a device that cannot be used.
    """
    on = usable_device(device)
    field = load_bundle(path)
    try:
        model = BundleModel(field)  # type: ignore[abstract]  # what is abstract is for training and scoring
    except ConfigError as error:
        raise BundleError(f"{path}: {error}") from error
    pipeline = BundlePipeline(model.to(on).eval())  # type: ignore[abstract]
    plan_bundle(field, adapters=False)  # commands have such a GPU render whole images (conversion/gpu_rendering.py)
    return Run(TrainerConfig(method_name="a bundle"), pipeline, path / WEIGHTS, step=0, path=path)


def bundle_line(run: Run) -> str:
    """What there is to say of a bundle that is opened as a run."""
    assert isinstance(run.model, BundleModel)
    quality = run.model.field.rendered_scene().quality
    plan = run.model.field.network.plan
    how = f", networks by plans: {plan}" if plan is not None else ""
    return f"a bundle{how}" if quality is None else f"a bundle, whose renderer {quality}{how}"


class BundleModel(Model):
    """A bundle's field as nerfstudio's models are called; it renders as `BundledField.render` does.

    Args:
        field: with a scene that can be rendered.

    Attributes:
        whole: the field with all of its features.
        field: what is evaluated, which may be a share of them.

    Raises:
        ConfigError: it cannot.
    """

    field: BundledField

    def __init__(self, field: BundledField) -> None:
        scene = field.rendered_scene()
        box = SceneBox(aabb=torch.tensor(scene.box).view(2, 3))
        super().__init__(ModelConfig(enable_collider=False, eval_num_rays_per_chunk=FAST_RAYS), box, 0)
        self.whole, self.field = field, field
        self._narrower: dict[float, BundledField] = {}
        self.collider = NearFarCollider(scene.near, scene.far, reset_near_plane=False)  # type: ignore[assignment]
        self.renders_colours = field.kind == "radiance"

    @property
    def shares(self) -> tuple[float, ...]:
        """See `BundledField`; of the field with all of its features."""
        return self.whole.shares

    def evaluate_at(self, share: float) -> None:
        """Evaluates the bundle at one of `shares` from now on, by plans as `open_bundle` has them.

        Raises:
            ConfigError: it is none of them.
        """
        if share == 1 and self.shares:
            self.field = self.whole
            return
        if share not in self._narrower:
            narrower = self.whole.at_share(share)
            plan_bundle(narrower, adapters=False)
            self._narrower[share] = narrower
        self.field = self._narrower[share]

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:  # type: ignore[override]
        """`rgb`, `depth`, `accumulation`, and of a surface `z_depth` and `normals`; `[rays, channels]`."""
        return render_side_by_side(self._render, ray_bundle, RAYS_AT_ONCE)

    def _render(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        found = self.field.render_rays(rays_of(ray_bundle))
        return image_outputs(found, ray_bundle.metadata.get("directions_norm", torch.ones_like(found.depth)))


def image_outputs(found: RenderedPixels, stretch: Tensor) -> dict[str, Tensor]:
    """What a bundle renders, under the names that nerfstudio's models give it.

    Args:
        found: `[..., channels]`.
        stretch: `[..., 1]`, of rays beyond a depth of 1 along the camera's axis.
    """
    outputs = {"rgb": found.colour, "depth": found.depth, "accumulation": found.accumulation}
    if found.normals is not None:
        outputs["z_depth"] = found.depth / stretch
        outputs["normals"] = 0.5 * (found.normals + 1) * found.accumulation
    return outputs


class BundlePipeline(Pipeline):
    """As much of a pipeline as shows and renders a bundle.

    Args:
        model: of the bundle.
    """

    def __init__(self, model: BundleModel) -> None:
        super().__init__()
        self._model = model
        scene = model.field.rendered_scene()
        transform = torch.tensor(scene.coordinates.transform, dtype=torch.float64).view(3, 4)
        placed = DataCoordinates(transform, scene.coordinates.scale)
        views = BundleViews(nerfstudio_cameras(scene.views), scene.views) if scene.views else None
        self.datamanager = BundleData(views, placed)  # type: ignore[assignment]


@dataclass(frozen=True)
class DataCoordinates:
    """From the data set's coordinates to the run's, under the names that nerfstudio's data parsers have."""

    dataparser_transform: Tensor
    """`[3, 4]`."""
    dataparser_scale: float


class BundleData(nn.Module):
    """In the place of a data manager."""

    def __init__(self, eval_dataset: BundleViews | None, train_dataparser_outputs: DataCoordinates) -> None:
        super().__init__()
        self.eval_dataset, self.train_dataparser_outputs = eval_dataset, train_dataparser_outputs


@dataclass(frozen=True)
class BundleViews:
    """Test views without photographs, in the place of a data set."""

    cameras: Cameras
    views: tuple[BundledView, ...]

    def __len__(self) -> int:
        """How many."""
        return len(self.views)

    def get_image_float32(self, index: int) -> Any:
        """Refuses: raises `DataError`."""
        raise DataError(f"a bundle holds the camera of {self.views[index].name}, not the photograph")


def nerfstudio_cameras(views: tuple[BundledView, ...]) -> Cameras:
    """The cameras of some views, one at least, on the CPU."""
    cameras = [view.camera for view in views]
    numbers = {name: torch.tensor([[getattr(c, name)] for c in cameras]) for name in ("fx", "fy", "cx", "cy")}
    sizes = {name: torch.tensor([[getattr(c, name)] for c in cameras]) for name in ("width", "height")}
    timed = any(camera.time is not None for camera in cameras)
    times = torch.tensor([[camera.time or 0.0] for camera in cameras]) if timed else None
    return Cameras(torch.stack([c.pose.float() for c in cameras]), **numbers, **sizes, times=times)  # type: ignore[arg-type]


def pinhole_camera(camera: Cameras) -> PinholeCamera:
    """One camera `[]` as `core` has it, without the distortion of its lens."""
    fx, fy, cx, cy = (float(getattr(camera, name)) for name in ("fx", "fy", "cx", "cy"))
    time = None if camera.times is None else float(camera.times)
    pose = camera.camera_to_worlds.float().cpu().clone()
    return PinholeCamera(pose, fx, fy, cx, cy, int(camera.width), int(camera.height), time)
