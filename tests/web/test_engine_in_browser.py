"""The engine against PyTorch in a real browser: points, pictures of every kind of field, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from bundles import looking_at, network, with_scene
from engine_page import DRAW, OPEN, EnginePage, camera_entries, decibel
from hostile_scenes import CHANGES, changed
from installed_browser import NO_CHROMIUM, NO_PLAYWRIGHT, chromium
from pages import WEBGPU, a_browser

from eugen_nerf.core import BundledGraph, FrequencyEncoding, RadianceBundle
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.distance_bundle import DistanceBundle
from eugen_nerf.core.cameras.pinhole_camera import PinholeCamera
from eugen_nerf.core.encodings.point_encodings import ContractedEncoding
from eugen_nerf.core.layers.stage import Affine, MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph
from eugen_nerf.web.rounding import rounded
from eugen_nerf.web.scene_data import scene_data

POINTS = ("frequency", "moving", "box", "distance")
KINDS = (*POINTS, "contracted", "pyramid", "cube")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One with WebGPU in software."""
    pytest.importorskip("playwright.sync_api", reason=NO_PLAYWRIGHT)
    if chromium() is None:
        pytest.skip(NO_CHROMIUM)
    with a_browser(*WEBGPU) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(browser: Any) -> EnginePage:
    return EnginePage(browser.new_page())


@pytest.fixture(scope="module")
def tiled(browser: Any) -> EnginePage:
    """An engine whose threads share tiles, as they do on a GPU."""
    return EnginePage(browser.new_page(), tiles=True)


def wide(kind: str) -> tuple[BundledField, PinholeCamera]:
    """A field, and a camera whose picture has more than one workgroup in every pass."""
    if kind == "wide":
        return wide_inputs(), looking_at(torch.tensor([2.0, 1.0, 1.0]), 6, 5)
    return with_scene(kind), looking_at(torch.tensor([2.0, 1.0, 1.0]), 24, 20, 0.4 if kind == "moving" else None)


def wide_inputs() -> BundledField:
    """A field of frustums with more inputs than a tile holds at a time, which two layers read."""
    directions = torch.nn.functional.normalize(torch.randn(21, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    position, direction = ContractedEncoding(directions, 3), FrequencyEncoding(3, 2, 0.0, 4.0)
    assert position.out_features > 96
    field = RadianceBundle(position, network((position.out_features, direction.out_features)), direction).eval()
    field.scene = with_scene("contracted").scene
    return field


def queried(page: EnginePage, field: BundledField, count: int = 70) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of a field at random points, of the engine and of PyTorch: `[n, 4]`."""
    generator = torch.Generator().manual_seed(3)
    points, towards = 0.5 * torch.randn(count, 3, generator=generator), torch.randn(count, 3, generator=generator)
    towards, times = torch.nn.functional.normalize(towards, dim=-1), torch.rand(count, 1, generator=generator)
    exact = rounded(field, scene_data(field).precision)
    if isinstance(exact, DistanceBundle):
        expected = torch.cat([exact(points), torch.zeros(count, 3)], dim=-1)
    else:
        moving = getattr(field, "deformation", None) is not None
        expected = torch.cat(exact(points, towards, times if moving else None), dim=-1)
    inputs = torch.cat([points, times, towards, torch.zeros(count, 1)], dim=-1)
    return page.query(scene_data(field), inputs.numpy()), expected.detach().numpy()


@pytest.mark.parametrize("kind", POINTS)
def test_a_field_is_what_it_is_in_pytorch(page: EnginePage, kind: str) -> None:
    outputs, expected = queried(page, with_scene(kind))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(outputs, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_what_it_is_in_pytorch(page: EnginePage, kind: str) -> None:
    field, camera = wide(kind)
    image, drawn = page.draw([page.load(scene_data(field))], camera)
    expected = field.render(camera).colour.numpy()
    assert expected.std() > 0.05
    assert drawn["queries"] > 100
    assert decibel(image, expected) > 45


@pytest.mark.parametrize("kind", ["frequency", "distance", "wide"])
def test_threads_that_share_tiles_compute_the_same(page: EnginePage, tiled: EnginePage, kind: str) -> None:
    """What a GPU runs; the software adapter of the other tests gives every thread a tile of its own."""
    field, camera = wide(kind)
    images = [p.draw([p.load(scene_data(field))], camera)[0] for p in (page, tiled)]
    assert decibel(*images) > 70


def random_graph(
    functions: tuple[str, ...], degree: int, shared: bool, norm: bool, features: int, product: str = "plain"
) -> BundledGraph:
    """A chain of layers of 15 inputs and 15 more that the last one reads too."""
    generator = torch.Generator().manual_seed(features)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    blocks, widths, steps = degree if shared else degree * (degree + 1) // 2, [15, 15], []
    for number, phi in enumerate(functions):
        reads = (len(widths) - 1 if number else 0,) if number < len(functions) - 1 else (len(widths) - 1, 1)
        rows, columns = blocks * features, sum(widths[v] for v in reads)
        factored = [None if v < 2 or number == 1 else (drawn(5, widths[v]), drawn(5)) for v in reads]
        factors = tuple(factored) if norm else ()
        column = drawn(rows) if norm else None
        stage = MergedStage(
            drawn(rows, columns), drawn(rows), column, degree, shared, phi, product=product, factors=factors
        )
        steps.append((stage, reads))
        widths.append(degree * features)
    density = (len(widths) - 2, Affine(drawn(1, widths[-2]), None))
    outputs = (density, (len(widths) - 1, Affine(drawn(3, widths[-1]), drawn(3))))
    return BundledGraph(CollapsedGraph(tuple(steps), outputs), (15, 15))


LAYERS: dict[str, tuple[Any, ...]] = {
    "plain": (("gelu", "relu", "softplus", "identity"), 1, True, False, 13),
    "normed": (("sin", "cos", "tanh"), 2, True, True, 6),
    "of degree 3": (("gaussian", "sigmoid", "silu"), 3, False, True, 5),
    "with a parameter": (("softplus100", "gelu_tanh", "leaky_relu(0.2)", "elu"), 2, False, False, 8),
    "harmonic": (("relu", "identity"), 2, True, False, 8, "harmonic"),
    "minimum": (("relu", "identity"), 2, False, False, 8, "minimum"),
    "clamped": (("relu", "identity"), 2, True, False, 8, "clamped"),
}


@pytest.mark.parametrize(("layers", "engine"), [*((name, "page") for name in LAYERS), ("normed", "tiled")])
def test_layers_of_every_function_degree_and_norm(request: pytest.FixtureRequest, layers: str, engine: str) -> None:
    encoding = FrequencyEncoding(3, 2, 0.0, 1.0)
    field = RadianceBundle(encoding, random_graph(*LAYERS[layers]), encoding).eval()
    field.scene = with_scene("frequency").scene
    outputs, expected = queried(request.getfixturevalue(engine), field)
    np.testing.assert_allclose(outputs, expected, rtol=3e-3, atol=3e-4)


def test_a_split_has_one_field_on_either_side_and_a_difference_of_equal_ones_is_black(page: EnginePage) -> None:
    (field, camera), (other, _) = wide("frequency"), wide("box")
    fields = [page.load(scene_data(each)) for each in (field, other)]
    left, right = (page.draw([number], camera)[0] for number in fields)
    split, _ = page.draw(fields, camera, mode="split", split=0.25)
    np.testing.assert_allclose(split[:, :6], left[:, :6], atol=1e-6)
    np.testing.assert_allclose(split[:, 6:], right[:, 6:], atol=1e-6)
    assert page.draw([fields[0], fields[0]], camera, mode="difference")[0].max() == 0
    assert page.draw(fields, camera, mode="difference")[0].max() > 0.5


def test_normals_of_a_surface_are_the_gradients(page: EnginePage) -> None:
    field, camera = wide("distance")
    image, _ = page.draw([page.load(scene_data(field))], camera, shading="normals")
    normals = field.render(camera).normals
    assert normals is not None
    expected = torch.where(normals.abs().sum(dim=-1, keepdim=True) > 0, 0.5 + 0.5 * normals, 0.0).numpy()
    assert expected.std() > 0.1
    assert decibel(image, expected) > 45


def test_a_slice_lies_before_the_surface_and_in_the_box(page: EnginePage) -> None:
    field, camera = wide("distance")
    assert isinstance(field, DistanceBundle)
    field.output_scale *= -1  # the camera is outside
    number = page.load(scene_data(field))
    plain, _ = page.draw([number], camera)
    sliced, _ = page.draw([number], camera, shading="slice", slice={"axis": 0, "offset": -0.9})
    origins, directions = camera.rays()
    t = (-0.9 - origins[:, 0]) / directions[:, 0]
    inside = ((origins + t[:, None] * directions).abs() <= 1).all(dim=-1)
    before = inside & (t > 0) & (t < field.render(camera).depth.flatten())
    assert 0.05 < before.float().mean() < 0.98
    changed = (sliced != plain).any(axis=-1)
    assert (changed == before.view(camera.height, camera.width).numpy()).mean() > 0.98


def test_depth_is_shown_where_the_scene_is(page: EnginePage) -> None:
    field, camera = wide("frequency")
    image, _ = page.draw([page.load(scene_data(field))], camera, shading="depth")
    seen = field.render(camera).accumulation[..., 0].numpy()
    assert image[seen > 0.5].max(axis=-1).min() > 0.1
    assert image[seen == 0].max(initial=0.0) == 0


def test_pictures_of_any_size_follow_one_another(page: EnginePage) -> None:
    field, camera = wide("frequency")
    number = page.load(scene_data(field))
    first, _ = page.draw([number], camera)
    large, _ = page.draw([number], camera.resized(90))
    again, _ = page.draw([number], camera)
    assert large.shape == (90, 108, 3)
    np.testing.assert_array_equal(first, again)


def test_a_lost_gpu_is_reported_and_a_new_engine_goes_on(browser: Any) -> None:
    own = EnginePage(browser.new_page())
    field, camera = wide("frequency")
    number = own.load(scene_data(field))
    own.page.evaluate("() => engine.gpu.device.destroy()")
    assert own.page.evaluate("() => engine.lost") != ""
    with pytest.raises(Exception, match="could not be rendered"):
        own.draw([number], camera)
    own.page.evaluate(OPEN, [False])
    image, _ = own.draw([own.load(scene_data(field))], camera)
    assert decibel(image, field.render(camera).colour.numpy()) > 45


def test_nothing_but_the_engine_itself_is_requested(page: EnginePage) -> None:
    assert all(url.startswith("http://localhost/") for url in page.requests)


@pytest.mark.parametrize(("path", "value"), CHANGES)
def test_a_description_of_another_program_is_refused(page: EnginePage, path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(Exception, match="This scene cannot be shown"):
        page.load(changed(scene_data(with_scene("frequency")), path, value))


@pytest.mark.parametrize("size", [(0, 4), (9000, 4)])
def test_cameras_without_a_picture_are_refused(page: EnginePage, size: tuple[int, int]) -> None:
    field, camera = wide("frequency")
    entries = {"width": size[0], "height": size[1]}
    number = page.load(scene_data(field))
    with pytest.raises(Exception, match="sides are from 1 to 8192 pixels"):
        page.page.evaluate(DRAW, [[number], {"camera": {**camera_entries(camera), **entries}}])
