"""From a run to a bundle that renders: its field, renderer, background, planes, box and test views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from eugen_nerf.conversion.bundle_export import bundle_of
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_grid import BundledGrid
from eugen_nerf.core.bundles.bundled_proposals import BundledProposals
from eugen_nerf.core.bundles.bundled_scene import BundledScene, MeasuredQuality, SceneCoordinates, SceneRenderer
from eugen_nerf.core.bundles.bundled_surface import BundledSurface
from eugen_nerf.core.bundles.bundled_views import MAX_VIEWS, BundledView
from eugen_nerf.core.errors import ConfigError, EugenError, RunError
from eugen_nerf.core.ranges import QUALITY
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.core.rendering.surface_renderer import SurfaceRenderer
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.isdf import ISDFModel
from eugen_nerf.methods.rendering.fewer_samples import FewerSamples
from eugen_nerf.methods.rendering.grid_rendering import rays_of
from eugen_nerf.methods.rendering.planning import unplan_model
from eugen_nerf.methods.runs.bundle_runs import pinhole_camera
from eugen_nerf.methods.runs.fast_rendering import CHECK_RAYS, decibel, kept_renderer
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.runs.stock_runs import model_of_graphs
from eugen_nerf.methods.runs.training_rays import Photographs, blended, draw_pixels, ray_bundle, training_views
from eugen_nerf.methods.stock.graph_copies import has_graph_copy
from eugen_nerf.methods.unbounded_model import UnboundedModel

LONGEST_NAME = 200
"""Characters of a view's name."""
MEASURED_VIEWS = 8
"""Test views whose PSNR a bundle holds, at most."""
MEASURED_PIXELS = 1 << 20
"""Of all of them together, at most: an image of millions of pixels takes minutes on a CPU."""


def check_bundled(run: Run) -> None:
    """Refuses runs of methods whose fields bundles do not know.

    Raises:
        ConfigError: such a run.
    """
    if not isinstance(run.model, GraphModel) and not has_graph_copy(run.model):
        raise ConfigError(
            f"{run.path} is a run of {run.config.method_name}, whose fields are no graphs of layers: bundles and pages "
            "are for runs of vanilla-nerf, dnerf, nerfacto (torch implementation) and eugen methods"
        )


def bundle_of_run(
    run: Run, *, quality: float = QUALITY, progress: Callable[[str], None] = lambda line: None
) -> BundledField:
    """The bundle of a run, with its fast renderer where it has what that is chosen by.

    Args:
        run: of ours, or of a stock method of which `model_of_graphs` makes a copy; with its training and test views.
            `renderer.safetensors` may be written beside it, and its model renders exactly from now on.
        quality: dB of PSNR that the renderer may lose against the training photographs.
        progress: called with lines that say what the bundle lacks.

    Raises:
        ConfigError: as `check_bundled`.
    """
    check_bundled(run)
    model = model_of_graphs(run)
    assert model is not None
    field = bundle_of(model)
    if model.trained_shares() and not field.shares:
        progress("the bundle is as wide as the run is evaluated now: the other shares of its features are not in it")
    try:
        training = training_views(run.pipeline.datamanager).cameras
        field.scene = _scene(run, model, training, quality, progress)
    except EugenError as error:
        progress(f"the bundle holds the field alone and is not rendered: {error}")
        return field
    if field.scene.renderer is not None and model.renders_colours:
        field.scene.quality = _quality(run, model, field)
        field.scene.views = _scored(run, model, field)
        for share in field.shares[1:]:
            with model.evaluated_at(share):
                field.scene.share_quality[share] = _quality(run, model, field.at_share(share))
        for share, own in {1.0: field.scene.quality, **field.scene.share_quality}.items():
            if own.lost > quality:
                at = "" if share == 1 else f" at {share:g} of the features"
                progress(f"the bundle's images lose {own.lost:.2f} dB of PSNR{at}, more than the {quality:g} dB wanted")
    elif field.scene.renderer is None:
        progress(f"the bundle is not rendered: bundles have no renderer for the fields of {run.config.method_name} yet")
    return field


def _scene(
    run: Run, model: GraphModel, training: Cameras, quality: float, progress: Callable[[str], None]
) -> BundledScene:
    near, far = _planes(model, training)
    times = None if training.times is None else (float(training.times.min()), float(training.times.max()))
    return BundledScene(
        _renderer(run, model, quality, progress),
        near=near,
        far=far,
        box=tuple(model.scene_box.aabb.detach().double().flatten().tolist()),
        background=_background(model),
        views=_views(run, progress),
        coordinates=_coordinates(run),
        times=times,
    )


def _renderer(run: Run, model: GraphModel, quality: float, progress: Callable[[str], None]) -> SceneRenderer | None:
    """The renderer of the run's method; None for one without."""
    try:
        kept = kept_renderer(run, quality=quality, progress=progress)
    except EugenError as error:
        if not isinstance(model, ISDFModel):
            raise
        progress(f"the bundle's rays are traced without a grid: {error}")
        return BundledSurface(SurfaceRenderer())
    if kept is None:
        return None
    if isinstance(kept[0], SurfaceRenderer):
        return BundledSurface(kept[0] if kept[1].rate else SurfaceRenderer())
    if isinstance(kept[0], GridRenderer):
        return BundledGrid.of(kept[0])
    assert isinstance(model, UnboundedModel)
    assert isinstance(kept[0], FewerSamples)
    proposals = [bundle_of(model, name) for name in model.graph_fields() if name != "field"]
    return BundledProposals(model.bundled_renderer(kept[0].counts), proposals, thinned=True)


def _quality(run: Run, model: GraphModel, field: BundledField) -> MeasuredQuality:
    """What the bundle itself loses: its network is the collapsed one in float32, whatever the run's plans are."""
    cameras = training_views(run.pipeline.datamanager).cameras
    check = Photographs(run, draw_pixels(cameras, CHECK_RAYS, 1))
    model.render_by(None)
    unplan_model(model)
    exact = check.squared_error(model)
    own = check.squared_error(model, lambda rays: field.render_rays(rays_of(model.collider(rays))).colour)  # type: ignore[misc]
    return MeasuredQuality(decibel(exact), decibel(own))


def _scored(run: Run, model: GraphModel, field: BundledField) -> tuple[BundledView, ...]:
    """The bundle's views; some of them, evenly chosen, with the PSNR of its images to their photographs."""
    assert field.scene is not None
    views = list(field.scene.views)
    dataset = getattr(run.pipeline.datamanager, "eval_dataset", None)
    # without the distortion of lenses, images do not lie on photographs
    if dataset is None or not views or _has_lenses(dataset.cameras):
        return tuple(views)
    numbers = _plain_views(dataset.cameras)
    largest = max(view.camera.width * view.camera.height for view in views)
    count = min(MEASURED_VIEWS, len(views), MEASURED_PIXELS // largest)
    for place in (i * (len(views) - 1) // max(1, count - 1) for i in range(count)):
        photograph = dataset.get_image_float32(numbers[place]).to(model.device)
        colour = field.render(views[place].camera).colour
        if photograph.shape[:2] == colour.shape[:2]:
            error = (colour - blended(model, photograph.flatten(0, 1)).view_as(colour)).square().mean()
            views[place] = replace(views[place], psnr=decibel(float(error)))
    return tuple(views)


def _planes(model: GraphModel, training: Cameras) -> tuple[float, float]:
    """Near and far plane of evaluation, the same for all rays."""
    if model.collider is None:
        raise RunError(f"{type(model).__name__} has no near and far plane")
    rays = model.collider(ray_bundle(training.to(model.device), torch.zeros(1, 3, dtype=torch.long).to(model.device)))
    return float(rays.nears), float(rays.fars)


def _background(model: GraphModel) -> tuple[float, ...] | None:
    """Colour behind the scene as inference has it; None for that of a ray's last sample."""
    colour = model.renderer_rgb.background_color
    if isinstance(colour, Tensor):
        return tuple(colour.detach().double().clamp(0, 1).tolist())
    # of a random background nothing is left in inference
    return None if colour == "last_sample" else (0.0, 0.0, 0.0)


def _coordinates(run: Run) -> SceneCoordinates:
    outputs = getattr(run.pipeline.datamanager, "train_dataparser_outputs", None)
    if outputs is None:
        return SceneCoordinates()
    transform = outputs.dataparser_transform[:3].double().flatten().tolist()
    return SceneCoordinates(tuple(transform), float(outputs.dataparser_scale))


def _views(run: Run, progress: Callable[[str], None]) -> list[BundledView]:
    """The test views of perspective cameras; lenses are left out, which is said."""
    dataset = getattr(run.pipeline.datamanager, "eval_dataset", None)
    if dataset is None or not len(dataset):
        return []
    cameras, views = dataset.cameras.to("cpu"), []
    chosen = _plain_views(cameras)
    if len(chosen) < len(cameras):
        progress(f"the bundle has {len(chosen)} of {len(cameras)} test views: the first {MAX_VIEWS} of plain lenses")
    elif _has_lenses(cameras):
        progress("the bundle's test views are without the distortion of their lenses")
    for index in chosen:
        views.append(BundledView(_name(dataset, index), pinhole_camera(cameras[index])))
    return views


def _plain_views(cameras: Cameras) -> Sequence[int]:
    """Numbers of those of perspective cameras, as many as a bundle holds."""
    perspective = cameras.camera_type[:, 0] == CameraType.PERSPECTIVE.value
    return perspective.nonzero()[:MAX_VIEWS, 0].tolist()


def _has_lenses(cameras: Cameras) -> bool:
    """Whether images are distorted."""
    return cameras.distortion_params is not None and bool(cameras.distortion_params.any())


def _name(dataset: object, index: int) -> str:
    """Name of a view's photograph, as a text that can be shown; the view's number where it has none."""
    files = getattr(dataset, "image_filenames", None)
    name = Path(files[index]).name if files else ""
    shown = "".join(letter for letter in name if letter.isprintable())[:LONGEST_NAME]
    return shown or f"view {index}"
