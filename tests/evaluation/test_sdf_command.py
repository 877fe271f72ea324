"""eugen-sdf on trained runs: mesh, slices, volume, comparison with and without a known room, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_rgbd import few_rays, isdf_trainer

from eugen_nerf.cli.sdf import main
from eugen_nerf.data import rgbd_parser
from eugen_nerf.data.synthetic.room import ROOM_NAME, read_room
from eugen_nerf.data.synthetic.scan import RoomConfig, generate_room
from eugen_nerf.surfaces.distance_field import SignedDistance
from eugen_nerf.surfaces.volume import load_volume

QUICK = ["--points", "2000", "--rays", "100", "--chamfer-points", "1000", "--voxel", "0.15", "--slice-voxel", "0.1"]
QUICK += ["--repeats", "2", "--warmup", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = RoomConfig(num_frames=16, resolution=(32, 24), num_objects=3, seed=2)
    return generate_room(tmp_path_factory.mktemp("data") / "room", config)


@pytest.fixture(scope="module")
def runs(room: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The config.yml of a dense and an EUGen run of few steps: enough for a surface."""
    found = {}
    for variant in ("dense", "eugen"):
        trainer = isdf_trainer(room, tmp_path_factory.mktemp(variant), iterations=40, variant=variant, change=few_rays)
        trainer.train()
        found[variant] = trainer.config.get_base_dir() / "config.yml"
    return found


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line printed by a command that must fail with 1."""
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in args])
    assert caught.value.code == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_the_api_answers_as_the_field_does(runs: dict[str, Path]) -> None:
    sdf = SignedDistance.load(runs["eugen"], device="cpu")
    assert sdf.bounds.shape == (2, 3)
    assert (sdf.bounds[1] - sdf.bounds[0] > 2.0).all()
    points = np.random.default_rng(0).uniform(*sdf.bounds, size=(200, 3))
    with torch.no_grad():
        expected = sdf.field.distance(torch.from_numpy(points).float())
    np.testing.assert_array_equal(sdf.distance(points), expected.numpy())
    step = 1e-2
    slopes = [(sdf.distance(points + step * e) - sdf.distance(points - step * e)) / (2 * step) for e in np.eye(3)]
    assert np.median(np.abs(np.stack(slopes, axis=-1) - sdf.gradient(points))) < 0.02


def test_comparison_with_the_exact_room(
    room: Path,
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "report"
    args = ["evaluate", "--load-config", *map(str, runs.values()), "--names", "dense-s0", "dense-s1", *QUICK]
    known = [{"text": "both the same", "source": "a paper", "claim": "volume_l1_cm: dense > dense"}]
    (tmp_path / "known.json").write_text(json.dumps(known))
    args += ["--output", str(output), "--train-iterations", "1", "--published", str(tmp_path / "known.json")]
    readings = []
    inspect = rgbd_parser.inspect_sequence
    monkeypatch.setattr(rgbd_parser, "inspect_sequence", lambda *given: readings.append(given) or inspect(*given))
    main(args)
    assert len(readings) == 1  # for both runs and both splits
    printed = capsys.readouterr().out
    for text in ("errors against the exact distance, cm", "held-out depth and mesh", "mean ± standard deviation"):
        assert text in printed
    assert f"reference: exact signed distance of {room / ROOM_NAME}" in printed.replace("\n", "")
    report = json.loads((output / "report.json").read_text())
    for row, config in zip(report["rows"], runs.values(), strict=True):
        assert row["config"] == str(config)
        sdf = SignedDistance.load(config, device="cpu")
        truth = read_room(room / ROOM_NAME)
        points = truth.surface_points(np.random.default_rng(7), 4000)
        own = 100 * np.abs(sdf.distance(points)).mean()
        assert row["surface_l1_cm"] == pytest.approx(own, rel=0.35)  # seen parts are fitted better than all
        assert row["chamfer_cm"] == pytest.approx((row["accuracy_cm"] + row["completion_cm"]) / 2)
        assert set(row["volume_l1_bands_cm"]) == {"0-10 cm", "10-50 cm", "> 50 cm"}
        assert row["value_ms"] > 0.0
        assert row["iteration_seconds"] > 0.0
    assert report["rows"][0]["value_speed_ratio"] == 1.0
    assert report["protocol"]["held_out_views"] == 2
    assert "both the same" in printed
    assert "not decided" in report["published"][0]["verdict"]
    page = (output / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert not re.search(r"(src|href)=\"http", page)
    assert sorted(p.name for p in output.iterdir()) == ["report.html", "report.json", "slices.png"]
    assert "report.json exists: choose another --output" in refused(capsys, *args)


def test_comparison_without_a_room_is_with_fusion(
    room: Path, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "sequence"
    shutil.copytree(room, data)
    (data / ROOM_NAME).unlink()
    output = tmp_path / "report"
    main(["evaluate", "--load-config", str(runs["eugen"]), "--data", str(data), *QUICK, "--output", str(output)])
    printed = capsys.readouterr().out
    assert "errors against the exact distance" not in printed
    (row,) = json.loads((output / "report.json").read_text())["rows"]
    assert row["volume_l1_cm"] is None
    assert row["chamfer_cm"] > 0.0
    assert row["heldout_l1_cm"] > 0.0
    assert (
        "mesh fused from 16 depth images by open3d"
        in json.loads((output / "report.json").read_text())["protocol"]["reference"]
    )


def test_mesh_slice_and_volume(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import open3d

    run = ["--load-config", str(runs["dense"]), "--device", "cpu", "--voxel", "0.15"]
    sdf = SignedDistance.load(runs["dense"], device="cpu")
    sizes = {}
    for crop in ("--crop", "--no-crop"):
        path = tmp_path / f"mesh{crop}.ply"
        main(["mesh", *run, "--output", str(path), crop])
        mesh = open3d.io.read_triangle_mesh(str(path))
        vertices = np.asarray(mesh.vertices)
        assert np.median(np.abs(sdf.distance(vertices))) < 0.02
        normals = np.asarray(mesh.vertex_normals)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1.0, atol=1e-4)
        sizes[crop] = len(vertices)
    assert 0 < sizes["--crop"] < sizes["--no-crop"]
    main(["volume", *run, "--output", str(tmp_path / "v.npz"), "--bounds", "-1", "-1", "0.2", "1", "1", "1.4"])
    volume = load_volume(tmp_path / "v.npz")
    point = volume.origin + volume.spacing * (3, 2, 1)
    assert volume.distance[3, 2, 1] == pytest.approx(float(sdf.distance(point)), abs=1e-5)
    np.testing.assert_allclose(volume.origin, (-1, -1, 0.2))
    main(["slice", *run, "--output", str(tmp_path / "s.png"), "--axis", "y", "--at", "0.5"])
    printed = capsys.readouterr().out
    assert f"{tmp_path / 's.png'}: drew 1 slices across y at 0.5 m" in printed
    assert "wrote 15 x 15 x 9 signed distances, 0.15 m apart" in printed
    assert "s.png exists" in refused(capsys, "slice", *run, "--output", tmp_path / "s.png")
    assert "a slice at y = 50 m" in refused(
        capsys, "slice", *run, "--output", tmp_path / "t.png", "--axis", "y", "--at", "50"
    )
    assert "must end in .ply" in refused(capsys, "mesh", *run, "--output", tmp_path / "m.obj")
    assert "must end in .npz" in refused(capsys, "volume", *run, "--output", tmp_path / "v.npy")
    assert "must end in .png, .svg or .pdf" in refused(capsys, "slice", *run, "--output", tmp_path / "s.tiff")


@pytest.mark.parametrize("command", ["mesh", "slice", "volume"])
def test_grids_that_cannot_be_are_refused(
    command: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = {"mesh": "ply", "slice": "png", "volume": "npz"}[command]
    args = [command, "--load-config", runs["dense"], "--device", "cpu", "--output", tmp_path / f"x.{ending}"]

    def line(*more: object) -> str:
        return refused(capsys, *args, *more)

    for voxel in ("0", "-0.1", "nan", "1e-300"):
        assert f"--voxel must be at least 0.0001 and at most 1000, not {float(voxel):.15g}" in line("--voxel", voxel)
    assert "is empty or not finite: correct --bounds" in line("--bounds", 1, 1, 1, 0, 2, 2)
    assert "--bounds must be finite, not nan" in line("--bounds", 0, 0, "nan", 1, 1, 1)
    if command == "mesh":
        message = "a spacing of 0.002 m makes layers of 5001 x 5001 points, but at most 16,777,216 are held in memory"
        assert message in line("--voxel", 0.002, "--bounds", 0, 0, 0, 10, 10, 10)
    if command == "volume":
        message = "a spacing of 0.004 m makes a volume of 2501 x 1501 x 501 points, but at most 536,870,912"
        assert message in line("--voxel", 0.004, "--bounds", 0, 0, 0, 10, 6, 2)
    (tmp_path / "file").write_text("")
    assert "choose another --output" in refused(capsys, *args[:-1], tmp_path / "file" / "deep" / f"x.{ending}")
    assert "cannot be used here" in refused(capsys, *args[:-3], "nowhere", *args[-2:])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_runs_that_cannot_be_compared_are_refused(
    room: Path, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["evaluate", *QUICK, "--output", tmp_path / "r", "--load-config"]
    assert "no run at" in refused(capsys, *args, tmp_path / "config.yml")
    assert "2 names for 1 runs" in refused(capsys, *args, runs["dense"], "--names", "a", "b")
    assert "no run is called 'x'" in refused(capsys, *args, runs["dense"], "--baseline", "x")
    assert "--voxel must be at least 0.0001 and at most 1000, not 0" in refused(
        capsys, *args, runs["dense"], "--voxel", "0"
    )
    assert not (tmp_path / "r" / "report.json").exists()
    other = isdf_trainer(
        room, tmp_path, iterations=1, change=lambda c: setattr(c.pipeline.datamanager.dataparser, "eval_interval", 4)
    )
    other.train()
    message = refused(capsys, *args, runs["dense"], other.config.get_base_dir() / "config.yml", "--names", "a", "b")
    assert "b and a have different held-out views" in message


def test_a_run_without_signed_distance_is_refused(
    tiny_dense_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "volume", "--load-config", tiny_dense_run, "--output", tmp_path / "v.npz")
    assert "EugenNerfModel has no signed distance" in message


def test_help_needs_neither_open3d_nor_nerfstudio() -> None:
    code = (
        "import sys\nfrom eugen_nerf.cli.sdf import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'open3d', 'nerfstudio'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("mesh", "slice", "volume", "evaluate"):
        assert command in done.stdout
