"""Bundles whose images a GPU renders: the model, the check before use, the adapter by default, and the command."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bundles import with_scene

from eugen_nerf.cli import render
from eugen_nerf.conversion import gpu_rendering
from eugen_nerf.conversion.gpu_rendering import GpuModel, render_by_gpu
from eugen_nerf.core import save_bundle
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.methods.runs.bundle_runs import BundleModel, nerfstudio_cameras, open_bundle
from eugen_nerf.web.native import adapters
from eugen_nerf.web.native.adapters import GpuAdapter, GpuError, adapter_for, machine_adapters, missing_packages_reason
from eugen_nerf.web.native.native_engine import Drawn

CARD = GpuAdapter("a card", "DiscreteGPU", "Vulkan", None)
SOFTWARE = GpuAdapter("a processor", "CPU", "Vulkan", None)


class PyTorchEngine:
    """In place of an engine: PyTorch, and some colour added."""

    def __init__(self, field: BundledField, added: float = 0.0) -> None:
        self.field, self.added, self.closed = field, added, False

    def render(self, camera: Any) -> Drawn:
        pixels = self.field.render(camera)
        return Drawn(pixels._replace(colour=pixels.colour + self.added), 0)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    save_bundle(with_scene("frequency"), tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.mark.parametrize("kind", ["frequency", "moving", "distance"])
def test_the_model_gives_an_image_what_rays_get(kind: str) -> None:
    field = with_scene(kind)
    assert field.scene is not None
    camera = nerfstudio_cameras(field.scene.views)[0:1]
    exact = BundleModel(field).eval().get_outputs_for_camera(camera)  # type: ignore[abstract]
    made = GpuModel(field, PyTorchEngine(field)).get_outputs_for_camera(camera)  # type: ignore[abstract, arg-type]
    assert exact.keys() == made.keys()
    for name, value in exact.items():
        torch.testing.assert_close(made[name], value, msg=name)


def test_pytorch_goes_on_where_the_gpu_is_lost() -> None:
    class LostEngine:
        def render(self, camera: Any) -> Drawn:
            raise GpuError("a card was lost")

    field = with_scene("frequency")
    assert field.scene is not None
    camera = nerfstudio_cameras(field.scene.views)[0:1]
    exact = BundleModel(field).eval().get_outputs_for_camera(camera)  # type: ignore[abstract]
    with pytest.warns(RuntimeWarning, match="PyTorch renders this image: a card was lost"):
        made = GpuModel(field, LostEngine()).get_outputs_for_camera(camera)  # type: ignore[abstract, arg-type]
    torch.testing.assert_close(made["rgb"], exact["rgb"])


def test_a_gpu_is_used_only_where_its_image_is_right(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, lines, engines = open_bundle(bundle, device="cpu"), [], []
    model = run.model
    assert isinstance(model, BundleModel)
    wrong = iter([0.1, 0.1, 0.0])

    def opened(data: Any, adapter: GpuAdapter) -> PyTorchEngine:
        engines.append(PyTorchEngine(model.field, next(wrong)))
        return engines[-1]

    monkeypatch.setattr(gpu_rendering, "NativeEngine", opened)
    with pytest.raises(GpuError, match=r"the image of a card is 20\.0 dB from PyTorch's, and 45 are expected"):
        render_by_gpu(run, CARD, wanted=True)
    assert render_by_gpu(run, CARD, wanted=False, progress=lines.append) is None
    assert lines[0].startswith("not rendered on a card: the image of a card is 20.0 dB")
    assert run.model is model
    assert [engine.closed for engine in engines] == [True, True]
    line = render_by_gpu(run, CARD, wanted=False)
    assert line == "rendered on a card by Vulkan, a GPU; a test view is 120 dB of PSNR from PyTorch's"
    assert isinstance(run.model, GpuModel)


def test_a_bundle_without_test_views_is_not_rendered_by_a_gpu(tmp_path: Path) -> None:
    field = with_scene("frequency")
    assert field.scene is not None
    field.scene.views = ()
    save_bundle(field, tmp_path / "bundle")
    run = open_bundle(tmp_path / "bundle", device="cpu")
    with pytest.raises(ConfigError, match="no test view by which the GPU's image could be checked"):
        render_by_gpu(run, CARD, wanted=True)


def test_a_real_gpu_is_taken_by_default_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [CARD, SOFTWARE]
    monkeypatch.setattr(adapters, "machine_adapters", lambda: found)
    monkeypatch.setattr(adapters, "missing_packages_reason", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert adapter_for(None, exact=False) is CARD
    assert adapter_for("cpu", exact=False) is None
    assert adapter_for(None, exact=True) is None
    with pytest.raises(ConfigError, match="leave out --exact"):
        adapter_for("wgpu", exact=True)
    del found[0]
    assert adapter_for(None, exact=False) is None
    assert adapter_for("wgpu", exact=False) is SOFTWARE
    found.append(CARD)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert adapter_for(None, exact=False) is None


def test_the_command_renders_by_the_engine(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the form that the engine chooses here: on a software adapter each thread has a tile of its own."""
    if (reason := missing_packages_reason()) is not None:
        pytest.skip(reason)
    if not machine_adapters():
        pytest.skip("WebGPU finds no adapter here: apt-get install mesa-vulkan-drivers")
    rendered: list[SimpleNamespace] = []
    monkeypatch.setattr(GpuModel, "get_outputs_for_camera", _noting(rendered, GpuModel.get_outputs_for_camera))
    words = f"eugen-render {bundle} --device wgpu --path orbit --frames 2 --output {tmp_path / 'strip.png'}"
    monkeypatch.setattr(sys, "argv", words.split())
    render.main()
    assert "rendered on" in capsys.readouterr().out
    assert (tmp_path / "strip.png").is_file()
    assert len(rendered) == 2


def _noting(calls: list[Any], method: Any) -> Any:
    def noted(self: GpuModel, camera: Any, *others: Any) -> Any:
        calls.append(camera)
        return method(self, camera, *others)

    return noted
