"""The engine of pages in Python: its pictures against PyTorch's, by whatever adapter WebGPU finds here."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from bundles import looking_at, with_scene
from engine_page import decibel
from hostile_scenes import CHANGES, changed

from eugen_nerf.core.cameras.pinhole_camera import PinholeCamera
from eugen_nerf.web.native import adapters
from eugen_nerf.web.native.adapters import GpuAdapter, GpuError, choose_adapter, machine_adapters
from eugen_nerf.web.native.native_engine import NativeEngine
from eugen_nerf.web.scene_data import scene_data

FAMILIES = {
    "NeRF": "frequency",
    "D-NeRF": "moving",
    "Mip-NeRF 360": "contracted",
    "Zip-NeRF": "pyramid",
    "iSDF": "distance",
}
"""Kinds of fields by the methods that have them."""


@pytest.fixture(scope="module")
def adapter() -> GpuAdapter:
    """The machine's best."""
    if (reason := adapters.missing_packages_reason()) is not None:
        pytest.skip(reason)
    found = machine_adapters()
    if not found:
        pytest.skip("WebGPU finds no adapter here: apt-get install mesa-vulkan-drivers")
    return found[0]


def view(kind: str, width: int = 24, height: int = 20) -> PinholeCamera:
    return looking_at(torch.tensor([2.0, 1.0, 1.0]), width, height, 0.4 if kind == "moving" else None)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_is_what_it_is_in_pytorch(adapter: GpuAdapter, family: str) -> None:
    """With threads that share tiles, as on a GPU; a software adapter of the engine's own choice is tested elsewhere."""
    kind = FAMILIES[family]
    field, camera = with_scene(kind), view(kind)
    with NativeEngine(scene_data(field), adapter, tiles=True) as engine:
        image, queries = engine.render(camera)
        larger = engine.render(view(kind, 30, 26)).pixels.colour
        again = engine.render(camera).pixels
    expected = field.render(camera)
    assert expected.colour.std() > 0.05
    assert queries > 100
    assert decibel(image.colour.numpy(), expected.colour.numpy()) > 45
    assert (image.accumulation - expected.accumulation).abs().median() < 1e-3
    met = expected.accumulation > 0.5
    assert (image.depth - expected.depth)[met].abs().median() < 0.01
    assert larger.shape == (26, 30, 3)
    torch.testing.assert_close(again.colour, image.colour)
    assert (image.normals is None) == (expected.normals is None)
    if image.normals is not None and expected.normals is not None:
        assert decibel(image.normals.numpy(), expected.normals.numpy()) > 40


@pytest.mark.parametrize(("path", "value"), CHANGES)
def test_a_description_of_another_program_is_refused(adapter: GpuAdapter, path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(GpuError, match="This scene cannot be shown"):
        NativeEngine(changed(scene_data(with_scene("frequency")), path, value), adapter)


def test_a_lost_gpu_and_a_closed_engine_are_reported(adapter: GpuAdapter) -> None:
    engine = NativeEngine(scene_data(with_scene("distance")), adapter, tiles=True)
    with pytest.raises(GpuError, match="sides are from 1 to 8192 pixels"):
        engine.render(view("distance", 9000, 4))
    with pytest.raises(GpuError, match="make the picture smaller"):
        engine.render(view("distance", 8000, 8000))
    engine._bridge.device.destroy()
    with pytest.raises(GpuError, match=r"was lost or cannot go on .*: open the scene again"):
        engine.render(view("distance"))
    with pytest.raises(GpuError, match="is closed: open the scene again"):
        engine.render(view("distance"))
    engine.close()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda module: None)
    assert machine_adapters() == []
    with pytest.raises(GpuError, match=r"wgpu and mini-racer not installed: pip install 'eugen_nerf\[wgpu\]'"):
        choose_adapter()


def test_a_machine_without_adapters_is_told_what_to_install(
    adapter: GpuAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wgpu.gpu.enumerate_adapters_sync", lambda: [])
    with pytest.raises(GpuError, match="install the GPU's driver"):
        choose_adapter()


def test_compilers_load_beside_drivers(adapter: GpuAdapter) -> None:
    """Mesa's drivers and triton each bring an LLVM: in one order, loading both ends the process."""
    lines = "from eugen_nerf.web.native.adapters import machine_adapters; machine_adapters(); import torch._dynamo"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", lines], check=False).returncode == 0


def test_a_card_of_its_own_comes_first_and_software_last(adapter: GpuAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(device: str, kind: str, api: str = "Vulkan") -> SimpleNamespace:
        return SimpleNamespace(info={"device": device, "vendor": "", "adapter_type": kind, "backend_type": api})

    handles = [
        found("processor", "CPU"),
        found("chip", "IntegratedGPU"),
        found("card by an old driver", "DiscreteGPU", "OpenGL"),
        found("card", "DiscreteGPU"),
        found("riddle", "VirtualGPU"),
    ]
    monkeypatch.setattr("wgpu.gpu.enumerate_adapters_sync", lambda: handles)
    assert [each.name for each in machine_adapters()] == ["card", "chip", "riddle", "processor"]
    assert str(choose_adapter()) == "card by Vulkan, a GPU"
    assert [each.software for each in machine_adapters()] == [False, False, False, True]


def tiny(**limits: int) -> GpuAdapter:
    """An adapter with the limits of WebGPU's promise but for some, whose device does nothing."""
    promised = {"max-compute-workgroup-storage-size": 16384, "max-storage-buffer-binding-size": 1 << 27}
    all_limits = {**promised, "max-buffer-size": 1 << 28, **{k.replace("_", "-"): v for k, v in limits.items()}}
    device = MagicMock(limits=all_limits)
    handle = SimpleNamespace(limits=all_limits, request_device_sync=lambda required_limits: device)
    return GpuAdapter("Tiny", "IntegratedGPU", "Vulkan", handle)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"max_compute_workgroup_storage_size": 2048},
            r"its layers take \d+ bytes that a workgroup shares, and this GPU has 2048: take another GPU, or make the "
            r"network narrower \(eugen-distill\)\. Or render with --device cpu\.",
        ),
        (
            {"max_storage_buffer_binding_size": 1000},
            r"This GPU holds 0\.001 MB at a time; the \w[\w ]* take 0\.\d+ MB: take another GPU, or a smaller field "
            r"\(eugen-distill\) or picture\. Or render with --device cpu\.",
        ),
    ],
)
def test_an_adapter_that_is_too_small_is_told_what_is_needed(limits: dict[str, int], message: str) -> None:
    if (reason := adapters.missing_packages_reason()) is not None:
        pytest.skip(reason)
    with pytest.raises(GpuError, match=message):
        NativeEngine(scene_data(with_scene("frequency")), tiny(**limits))


def test_mesa_prints_nothing_where_there_is_no_display(
    adapter: GpuAdapter, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert machine_adapters()
    assert "XDG_RUNTIME_DIR" not in os.environ
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    machine_adapters()
    assert os.environ["XDG_RUNTIME_DIR"] == "/run/user/1"
