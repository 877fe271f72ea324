"""Bundles that render: what is written renders the same bits elsewhere, and a scene that makes no sense is refused."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import RENDERED, looking_at, make, some_grid, with_scene

from eugen_nerf.core import BundleError, ConfigError, PinholeCamera, load_bundle, save_bundle
from eugen_nerf.core.bundles.bundled_grid import BundledGrid, pack_bits, unpack_bits
from eugen_nerf.core.cameras.camera_images import RenderedPixels
from eugen_nerf.core.marching.ray_spans import RayBatch, Spans

pytest.importorskip("safetensors")
ROOT = Path(__file__).resolve().parents[3]
JSON, WEIGHTS = "bundle.json", "weights.safetensors"


@pytest.fixture(params=RENDERED)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def digest(image: RenderedPixels) -> str:
    parts = [value.contiguous().numpy().tobytes() for value in image if value is not None]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_written_and_read_it_renders_bit_for_bit(kind: str, tmp_path: Path) -> None:
    field = with_scene(kind)
    save_bundle(field, tmp_path / "bundle")
    read = load_bundle(tmp_path / "bundle")
    assert read.scene is not None
    assert [view.name for view in read.scene.views] == ["r_0.png", "r_1.png"]
    for mine, theirs in zip(field.cameras, read.cameras, strict=True):
        expected, found = field.render(mine), read.render(theirs)
        assert found.colour.shape == (5, 6, 3)
        assert found.depth.shape == found.accumulation.shape == (5, 6, 1)
        assert found.colour.std() > 0, "one colour would prove nothing"
        assert 0 <= found.colour.min() <= found.colour.max() <= 1
        assert digest(found) == digest(expected)
    save_bundle(read, tmp_path / "again")
    for name in (JSON, WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "bundle" / name).read_bytes()


def test_it_renders_where_nerfstudio_cannot_be_imported(tmp_path: Path) -> None:
    for kind in RENDERED:
        save_bundle(with_scene(kind), tmp_path / kind)
    code = (
        "import hashlib, sys\n"
        "absent = ('nerfstudio', 'tyro', 'rich', 'scipy', 'PIL', 'yaml')\n"
        "for name in absent: sys.modules[name] = None\n"
        "from eugen_nerf.core import load_bundle\n"
        f"for kind in {RENDERED!r}:\n"
        f"    field = load_bundle({str(tmp_path)!r} + '/' + kind)\n"
        "    image = field.render(field.cameras[1])\n"
        "    parts = [value.contiguous().numpy().tobytes() for value in image if value is not None]\n"
        "    print(hashlib.sha256(b''.join(parts)).hexdigest())\n"
        "print([name for name in sys.modules if name.startswith('eugen_nerf.methods')])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *digests, modules = done.stdout.split("\n")[:-1]
    assert modules == "[]"
    assert digests == [digest(field.render(field.cameras[1])) for field in map(with_scene, RENDERED)]


def test_an_image_is_the_renderers_on_the_rays_of_the_camera() -> None:
    """By hand: the field at the middles of the spans that the grid gives, and the background behind."""
    field, grid = with_scene("moving"), some_grid(3)
    grid.grid.density.copy_(grid.grid.density.half())
    camera = field.cameras[1]
    origins, directions = camera.rays()
    count = len(origins)
    rays = RayBatch(
        origins, directions, torch.full((count,), 0.1), torch.full((count,), 5.0), torch.full((count,), 0.5)
    )

    def query(rays: RayBatch, spans: Spans) -> tuple[torch.Tensor, torch.Tensor]:
        points = rays.origins[spans.ray] + spans.middle[:, None] * rays.directions[spans.ray]
        assert rays.times is not None
        found = field(points, rays.directions[spans.ray], rays.times[spans.ray, None])
        return found[0], found[1]

    expected = grid(query, rays)
    colour = expected.colour + (1 - expected.accumulation) * torch.tensor([0.25, 0.5, 1.0])
    found = field.render(camera)
    assert 0 < expected.accumulation.mean() < 1
    torch.testing.assert_close(found.colour.view(-1, 3), colour, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.depth.view(-1, 1), expected.depth, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.accumulation.view(-1, 1), expected.accumulation, atol=1e-5, rtol=0)


def test_without_a_background_the_last_sample_lies_behind() -> None:
    field = with_scene("box")
    assert field.scene is not None
    without = field.render(field.cameras[0])
    field.scene.background = (0.0, 0.0, 0.0)
    black = field.render(field.cameras[0])
    met = (black.accumulation > 0) & (black.accumulation < 0.99)
    assert met.any()
    behind = ((without.colour - black.colour) / (1 - black.accumulation))[met[..., 0]]
    assert (behind > 1e-3).any(dim=-1).all(), "a colour lies behind every ray that meets something"
    assert torch.equal(without.colour[black.accumulation[..., 0] == 0], black.colour[black.accumulation[..., 0] == 0])


@pytest.mark.parametrize("rays", [1, 7, 30])
def test_any_number_of_rays_at_once_gives_the_same_image(kind: str, rays: int) -> None:
    field = with_scene(kind)
    whole, parts = field.render(field.cameras[0]), field.render(field.cameras[0], rays_at_once=rays)
    torch.testing.assert_close(parts.colour, whole.colour, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts.accumulation, whole.accumulation, atol=1e-5, rtol=0)


def test_pixels_areas_are_what_pixels_cover() -> None:
    """Against the solid angle of a pixel, where rays are steep: nearly the product of its sides."""
    camera = PinholeCamera(torch.eye(4)[:3], 200.0, 100.0, 1.5, 1.5, 3, 3)
    assert torch.allclose(camera.pixel_areas(), torch.tensor(1 / 200 / 100), rtol=1e-3)
    assert torch.equal(camera.pixel_areas(2, 5), camera.pixel_areas()[2:5])


def test_fields_of_frustums_need_the_areas_of_pixels() -> None:
    field = with_scene("pyramid")
    origins, directions = field.cameras[0].rays()
    ends = torch.full((len(origins),), 0.1)
    with pytest.raises(ConfigError, match="need the areas of their pixels"):
        field.render_rays(RayBatch(origins, directions, ends, 10 * ends))


def test_the_time_of_a_camera_is_that_of_its_image() -> None:
    field = with_scene("moving")
    eye = torch.tensor([2.0, 1.0, 1.0])
    first, last = (field.render(looking_at(eye, time=time)).colour for time in (0.0, 1.0))
    assert (first - last).abs().max() > 1e-3
    with pytest.raises(ConfigError, match="needs times"):
        field.render(looking_at(eye))


def test_fields_of_other_dtypes_render_alike(kind: str) -> None:
    field = with_scene(kind)
    double = field.cast(torch.float64)
    found = double.render(double.cameras[0])
    assert found.colour.dtype == torch.float32
    if kind != "moving":  # a rounded offset may lead into another cell
        torch.testing.assert_close(found.colour, field.render(field.cameras[0]).colour, atol=1e-3, rtol=0)
    assert isinstance(copy.deepcopy(double).render(double.cameras[0]), RenderedPixels)


def test_what_cannot_be_rendered_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a field without a renderer: it was written by an older version, or without"):
        make("frequency").render(looking_at(torch.ones(3)))
    golden = load_bundle(ROOT / "tests/golden/bundles/nerf-converted")
    assert golden.cameras == ()
    with pytest.raises(ConfigError, match="write it again"):
        golden.render(looking_at(torch.ones(3)))
    field = with_scene("frequency")
    assert field.scene is not None
    field.scene.renderer = None
    save_bundle(field, tmp_path / "bundle")
    read = load_bundle(tmp_path / "bundle")
    assert len(read.cameras) == 2
    with pytest.raises(ConfigError, match="has test views and no renderer"):
        read.render(read.cameras[0])
    with pytest.raises(ConfigError, match="at least 1 ray at a time, got 0"):
        with_scene("frequency").render(read.cameras[0], rays_at_once=0)


def test_bits_are_those_that_were_packed() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (0, 1, 7, 8, 9, 100):
        values = torch.rand(count, generator=generator) < 0.5
        packed = pack_bits(values)
        number = sum(int(value) << place for place, value in enumerate(values))
        assert int.from_bytes(bytes(packed.tolist()), "little") == number
        assert torch.equal(unpack_bits(packed, count), values)


def test_a_grid_is_kept_where_it_is_occupied() -> None:
    renderer = some_grid(2)
    kept = BundledGrid.of(renderer).renderer
    assert torch.equal(kept.grid.occupied, renderer.grid.occupied)
    inside = renderer.grid.density * renderer.grid.occupied
    assert torch.equal(kept.grid.density, inside.half().float())
    assert (kept.rate, kept.early_stop, kept.min_weight) == (3.0, renderer.early_stop, renderer.min_weight)


Scene = dict[str, Any]
FREQUENCIES = {"kind": "frequency", "count": 1, "lowest": 0, "highest": 0}
EDITS: dict[str, tuple[str, Callable[[Scene], Any], str]] = {
    "unknown": ("moving", lambda s: s.update(code="import os"), "this version does not know: 'code'"),
    "renderer's kind": ("moving", lambda s: s["renderer"].update(kind="surface"), "kind is 'surface'; it must be one"),
    "surface of a grid": ("distance", lambda s: s["renderer"].update(kind="grid"), "kind is 'grid'; it must be one of"),
    "two sides": ("moving", lambda s: s["renderer"].update(sides=[8, 7]), "three sides"),
    "great sides": ("moving", lambda s: s["renderer"].update(sides=[1024] * 3), "at most 67108864"),
    "other sides": ("moving", lambda s: s["renderer"].update(sides=[8, 7, 7]), "the description needs whole"),
    "fewer cells": ("moving", lambda s: s["renderer"].update(sides=[8, 7, 6], times=2), "the description needs whole"),
    "no cell": ("moving", lambda s: s["renderer"].update(cell=0), "cell is 0; it must be a number from 1e-06"),
    "no rate": ("moving", lambda s: s["renderer"].update(rate=0.0), "rate is 0.0; it must be a number from 0.001"),
    "endless steps": ("distance", lambda s: s["renderer"].update(max_steps=10**9), "a whole number from 1 to 4096"),
    "two sides of distances": ("distance", lambda s: s["renderer"].update(sides=[9, 9]), "three sides"),
    "great sides of distances": ("distance", lambda s: s["renderer"].update(sides=[1024] * 3), "at most 67108864"),
    "other sides of distances": ("distance", lambda s: s["renderer"].update(sides=[9, 9, 9]), "the description needs"),
    "no cell of distances": ("distance", lambda s: s["renderer"].update(cell=0), "cell is 0; it must be a number"),
    "sides without a cell": ("distance", lambda s: s["renderer"].pop("cell"), "this version does not know: 'sides'"),
    "no colour": ("pyramid", lambda s: s["renderer"]["proposals"].append({}), "lacks 'kind'"),
    "no proposal": ("pyramid", lambda s: s["renderer"].update(proposals=[]), "proposals is a list of 0"),
    "one round": ("pyramid", lambda s: s["renderer"].update(counts=[6]), "2 to 8 rounds have from 2 to 512 samples"),
    "many samples": ("pyramid", lambda s: s["renderer"].update(counts=[6, 10**6]), "a whole number from 2 to 512"),
    "exponent": ("pyramid", lambda s: s["renderer"].update(exponent=1), "an exponent that is neither 0 nor 1"),
    "no near end": ("contracted", lambda s: s.update(near=0), "near must be above 0 where proposals space samples"),
    "a proposal's place": (
        "pyramid",
        lambda s: s["renderer"]["proposals"][0].update(position=FREQUENCIES),
        "is no proposal: one has a density of frustums, and no colour",
    ),
    "far": ("moving", lambda s: s.update(far=0.1), "near must be below far"),
    "box": ("moving", lambda s: s.update(box=[1, 1, 1, 1, 2, 2]), "first corner below its second"),
    "short box": ("moving", lambda s: s.update(box=[0] * 5), "box is a list of 5; it must be a list of 6 to 6"),
    "background": ("moving", lambda s: s.update(background=[0, 0, 2]), r"must be a number from 0 to 1"),
    "times": ("moving", lambda s: s.update(times=[1, 0]), "times ends before it begins"),
    "scale": ("moving", lambda s: s.update(scale=0), "scale is 0; it must be a number from 1e-09"),
    "quality": ("moving", lambda s: s["quality"].update(psnr="good"), "psnr is 'good'; it must be a number"),
    "views": ("moving", lambda s: s.update(views={}), "views is an object; it must be a list of 0 to 4096"),
    "many views": ("moving", lambda s: s.update(views=s["views"] * 3000), "views is a list of 6000"),
    "name": (
        "moving",
        lambda s: s["views"][0].update(name="a\nb"),
        "a text of 1 to 200 characters that can be printed",
    ),
    "long name": ("moving", lambda s: s["views"][0].update(name="a" * 201), "a text of 1 to 200 characters"),
    "surrogate": ("moving", lambda s: s["views"][0].update(name="\ud800"), "a text of 1 to 200 characters"),
    "pose": ("moving", lambda s: s["views"][0].update(pose=[0] * 12), "orthonormal; these deviate by 1"),
    "short pose": ("moving", lambda s: s["views"][0].update(pose=[0] * 9), "a list of 12 to 12"),
    "size": ("moving", lambda s: s["views"][0].update(width=0), "width is 0; it must be a whole number from 1"),
    "great image": ("moving", lambda s: s["views"][0].update(width=1 << 14, height=1 << 14), "at most 67108864 pixels"),
    "focal length": ("moving", lambda s: s["views"][0].update(fx=0), "positive focal lengths"),
    "no time": ("moving", lambda s: s["views"][1].update(time=None), "moves, but its view 'r_1.png' has no time"),
    "time": ("moving", lambda s: s["views"][0].update(time=2), "time is 2; it must be a number from 0 to 1"),
    "infinite": ("moving", lambda s: s["views"][0].update(cx=float("inf")), "not valid JSON: Infinity"),
}


@pytest.mark.parametrize("name", list(EDITS))
def test_scenes_that_are_wrong(name: str, tmp_path: Path) -> None:
    kind, edit, message = EDITS[name]
    save_bundle(with_scene(kind), tmp_path / "bundle")
    document = json.loads((tmp_path / "bundle" / JSON).read_text())
    edit(document["scene"])
    (tmp_path / "bundle" / JSON).write_text(json.dumps(document))
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)
    document = json.loads((folder / JSON).read_text())
    document["tensors"] = {n: {"dtype": str(t.dtype)[6:], "shape": list(t.shape)} for n, t in tensors.items()}
    (folder / JSON).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("density", lambda v: -v, "must hold float16 that are not negative"),
        ("density", lambda v: v.float(), "must hold float16 that are not negative"),
        ("density", lambda v: v / 0, "holds NaN or infinity"),
        ("density", lambda v: v[:-1].clone(), "the description needs floating point"),
        ("bits", lambda v: v[:-1].clone(), "the description needs whole"),
        ("bits", lambda v: 255 - v, "the description needs floating point"),
        ("bits", lambda v: v.half(), "the description needs whole"),
        ("low", lambda v: v * 1e9, "must hold float32 of at most 1e"),
        ("low", lambda v: v.double(), "must hold float32"),
    ],
)
def test_grids_that_are_wrong(name: str, change: Any, message: str, tmp_path: Path) -> None:
    save_bundle(with_scene("moving"), tmp_path / "bundle")
    key = f"scene.renderer.{name}"
    edit_tensors(tmp_path / "bundle", lambda tensors: tensors.update({key: change(tensors[key])}))
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path / "bundle")


def test_a_scene_of_version_1_is_refused(tmp_path: Path) -> None:
    save_bundle(with_scene("frequency"), tmp_path / "bundle")
    document = json.loads((tmp_path / "bundle" / JSON).read_text())
    (tmp_path / "bundle" / JSON).write_text(json.dumps({**document, "version": 1}))
    with pytest.raises(BundleError, match="does not know: 'scene'"):
        load_bundle(tmp_path / "bundle")


def test_a_camera_that_is_no_camera() -> None:
    pose = torch.eye(4)[:3]
    with pytest.raises(ConfigError, match=r"a finite tensor \[3, 4\]"):
        PinholeCamera(torch.eye(4), 1.0, 1.0, 0.5, 0.5, 1, 1)
    with pytest.raises(ConfigError, match=r"axes .* orthonormal; these deviate by 3"):
        PinholeCamera(2 * pose, 1.0, 1.0, 0.5, 0.5, 1, 1)
    with pytest.raises(ConfigError, match="positive focal lengths"):
        PinholeCamera(pose, 1.0, float("nan"), 0.5, 0.5, 1, 1)
    with pytest.raises(ConfigError, match="1 to 16384 pixels a side, got 0 x 1"):
        PinholeCamera(pose, 1.0, 1.0, 0.5, 0.5, 0, 1)


def test_rays_meet_the_middles_of_their_pixels() -> None:
    """Points along rays, projected by hand, are where the pixels are; some pixels alone give those of all."""
    camera = looking_at(torch.tensor([2.0, -1.0, 0.7]), width=7, height=4)
    origins, directions = camera.rays()
    assert torch.allclose(directions.norm(dim=-1), torch.ones(28))
    points = origins + 3.0 * directions
    local = (points - camera.pose[:, 3]) @ camera.pose[:, :3]
    columns = camera.fx * local[:, 0] / -local[:, 2] + camera.cx
    rows = -camera.fy * local[:, 1] / -local[:, 2] + camera.cy
    torch.testing.assert_close(columns.view(4, 7), (torch.arange(7) + 0.5).expand(4, 7), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.view(4, 7), (torch.arange(4) + 0.5)[:, None].expand(4, 7), atol=1e-4, rtol=0)
    assert torch.equal(camera.rays(5, 9)[1], directions[5:9])


def test_a_resized_camera_sees_the_same() -> None:
    camera = looking_at(torch.tensor([2.0, -1.0, 0.7]), width=8, height=4)
    large = camera.resized(12)
    assert (large.width, large.height) == (24, 12)
    # the middle of three by three pixels is that of one
    middles = large.rays()[1].view(12, 24, 3)[1::3, 1::3]
    torch.testing.assert_close(middles.reshape(-1, 3), camera.rays()[1], atol=1e-6, rtol=0)
