"""Runs and bundles whose images this machine's GPU renders by WebGPU, once a test view is what PyTorch makes of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from eugen_nerf.conversion.bundle_scene import bundle_of_run
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.errors import ConfigError, EugenError
from eugen_nerf.core.ranges import QUALITY
from eugen_nerf.methods.runs.bundle_runs import BundleModel, image_outputs, pinhole_camera
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.web.native.adapters import GpuAdapter, GpuError
from eugen_nerf.web.native.native_engine import NativeEngine
from eugen_nerf.web.scene_data import scene_data

CHECK_HEIGHT = 48
"""Rows of the test view that is compared, at most."""
MIN_PSNR = 45.0
"""dB of the GPU's image to PyTorch's, below which the GPU is not used."""


class GpuModel(BundleModel):
    """A bundle's field whose images a GPU renders; PyTorch renders single rays, cameras with a lens, and what the GPU
    cannot: all once it is lost.

    Args:
        field: that can be rendered, on the CPU.
        engine: with the same field.
    """

    def __init__(self, field: BundledField, engine: NativeEngine) -> None:
        super().__init__(field)
        self.engine = engine

    def get_outputs_for_camera(self, camera: Cameras, obb_box: object = None) -> dict[str, Tensor]:
        """As `get_outputs`, of one camera: `[height, width, channels]`."""
        if int(camera.camera_type.flatten()[0]) != CameraType.PERSPECTIVE.value or obb_box is not None:
            return super().get_outputs_for_camera(camera, obb_box)  # type: ignore[arg-type]
        if camera.distortion_params is not None and bool(camera.distortion_params.any()):
            return super().get_outputs_for_camera(camera)
        view = pinhole_camera(camera.flatten()[0])
        columns = (torch.arange(view.width) + 0.5 - view.cx) / view.fx
        rows = (torch.arange(view.height) + 0.5 - view.cy) / view.fy
        stretch = (1 + columns.square() + rows.square()[:, None]).sqrt()[..., None]
        try:
            return image_outputs(self.engine.render(view).pixels, stretch)
        except GpuError as error:
            warnings.warn(f"PyTorch renders this image: {error}", RuntimeWarning, stacklevel=2)
            return super().get_outputs_for_camera(camera)


def render_by_gpu(
    run: Run,
    adapter: GpuAdapter,
    *,
    wanted: bool,
    quality: float = QUALITY,
    progress: Callable[[str], None] = lambda line: None,
) -> str | None:
    """Has a GPU render a run's images from now on, by what a web page of it would hold.

    Args:
        run: one that a page can be made of, or a bundle, on the CPU; its model is replaced.
        adapter: the GPU.
        wanted: whether it was requested: errors are raised then, else they are a line of progress.
        quality: dB of PSNR that the renderer of a run may lose on training photographs; a bundle's is chosen already.
        progress: called with lines to print.

    Returns:
        A line that says what renders; None where PyTorch goes on to do so.

    Raises:
        EugenError: where the GPU is wanted, why it cannot be used.
    """
    try:
        model = run.model
        if isinstance(model, BundleModel):
            field = model.field
        else:
            field = bundle_of_run(run, quality=quality, progress=progress).cpu()
        if field.shares:
            field = field.at_share(field.shares[0])  # the engine has no others
        engine, psnr = _checked_engine(field, adapter)
    except EugenError as error:
        if wanted:
            raise
        progress(f"not rendered on {adapter.name}: {error}")
        return None
    run.pipeline._model = GpuModel(field, engine).eval()  # type: ignore[abstract]
    return f"rendered on {adapter}; a test view is {psnr:.0f} dB of PSNR from PyTorch's"


def _checked_engine(field: BundledField, adapter: GpuAdapter) -> tuple[NativeEngine, float]:
    """An engine with a field, and the PSNR of its image of a test view to PyTorch's, dB.

    Raises:
        ConfigError: a field that has no renderer or no test view, or that a page cannot hold.
        GpuError: the GPU cannot be used, or its image is another one.
    """
    field.rendered_scene()
    if not field.cameras:
        raise ConfigError("it has no test view by which the GPU's image could be checked: use --device cpu")
    camera = field.cameras[0].resized(min(CHECK_HEIGHT, field.cameras[0].height))
    engine = NativeEngine(scene_data(field), adapter)
    try:
        image = engine.render(camera).pixels.colour
    except GpuError:
        engine.close()
        raise
    error = float((image - field.render(camera).colour).square().mean())
    psnr = -10 * math.log10(max(error, 1e-12))
    if not psnr >= MIN_PSNR:
        engine.close()
        raise GpuError(
            f"the image of {adapter.name} is {psnr:.1f} dB from PyTorch's, and {MIN_PSNR:g} are expected: its driver "
            "or this engine is wrong; use --device cpu, and report the adapter's name"
        )
    return engine, psnr
