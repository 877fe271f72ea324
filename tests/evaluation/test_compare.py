"""Runs compared end to end, from their files to the report, on tiny stock runs."""

import json
import re
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from eugen_nerf.cli import eval as command
from eugen_nerf.core.errors import ConfigError, DataError, RunError
from eugen_nerf.evaluation.compare import Comparison, evaluate
from eugen_nerf.evaluation.images.difference import FULL_SCALE, difference_image, scale_colours
from eugen_nerf.evaluation.images.ground_truth import ground_truth
from eugen_nerf.evaluation.images.view_rendering import images_hash, poses_hash, render_views
from eugen_nerf.evaluation.protocol import Protocol, Timing
from eugen_nerf.evaluation.reports.comparison_report import check_output, print_table, to_json, write_report
from eugen_nerf.evaluation.reports.headline import headline
from eugen_nerf.evaluation.reports.pages import png_data_uri
from eugen_nerf.methods.runs.loading import load_run

QUICK = Timing(warmup=0, repeats=2, num_queries=64, chunk_size=32)
ROW_KEYS = {
    "variant",
    "psnr",
    "ssim",
    "lpips",
    "seconds_per_image",
    "queries_per_second",
    "parameters",
    "macs_per_query",
}


@pytest.fixture(scope="module")
def comparison(tiny_stock_run: Path, second_stock_run: Path) -> Comparison:
    return evaluate([tiny_stock_run, second_stock_run], names=["one", "two"], timing=QUICK, device="cpu")


def copy_data(tiny_blender: Path, place: Path) -> Path:
    return Path(shutil.copytree(tiny_blender, place))


def test_rows_and_their_meaning(comparison: Comparison, tiny_stock_run: Path) -> None:
    assert [row["variant"] for row in comparison.rows] == ["one", "two", "mean-image", "white"]
    for row in comparison.rows:
        assert row.keys() >= ROW_KEYS
        assert row.keys() == comparison.rows[0].keys()
    one, two, mean, white = comparison.rows
    run = load_run(tiny_stock_run, device="cpu")
    assert one["parameters"] == sum(value.numel() for value in run.model.field_fine.parameters()) == 546_564
    assert one["model_parameters"] == 2 * 546_564
    linear = [module for module in run.model.field_fine.modules() if isinstance(module, torch.nn.Linear)]
    assert one["macs_per_query"] == sum(module.weight.numel() for module in linear)
    assert one["checkpoint_bytes"] == run.checkpoint.stat().st_size
    assert one["query_speed_ratio"] == one["image_speed_ratio"] == 1.0
    assert two["predictions_sha256"] != one["predictions_sha256"]
    assert (one["seed"], two["seed"]) == (0, 1)
    assert one["peak_memory_bytes"] == two["peak_memory_bytes"] > 0
    for row in (mean, white):
        assert row["seconds_per_image"] is row["queries_per_second"] is row["parameters"] is None
    assert one["queries_per_second"] == pytest.approx(64 / np.median(one["query_seconds"]))


def test_baselines_against_numpy(comparison: Comparison, tiny_blender: Path) -> None:
    def composited(split: str, count: int) -> list[np.ndarray]:
        images = []
        for view in range(count):
            rgba = np.asarray(Image.open(tiny_blender / split / f"r_{view}.png"), dtype=np.float64) / 255
            images.append(rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:]))
        return images

    truth = [np.floor(image * 255 + 0.5) for image in composited("test", 3)]
    for expected, image in zip(truth, comparison.truth, strict=True):
        assert np.abs(expected - image).max() <= 1  # float32 may round a half the other way
    mean = np.floor(np.mean(composited("train", 4), axis=0) * 255 + 0.5)
    for variant, image in (("mean-image", mean), ("white", np.full((16, 16, 3), 255.0))):
        row = next(row for row in comparison.rows if row["variant"] == variant)
        expected = np.mean([-10 * np.log10(np.mean((image / 255 - view / 255) ** 2)) for view in truth])
        assert row["psnr"] == pytest.approx(expected, abs=0.05)


def test_settings_are_recorded(comparison: Comparison) -> None:
    assert comparison.protocol["resolution"] == ["16x16"]
    assert comparison.protocol["number_of_views"] == 3
    assert comparison.protocol["lpips_net"] == "alex"
    assert comparison.protocol["timing"] == QUICK.to_dict()
    assert len(comparison.protocol["ground_truth_sha256"]) == 64
    assert comparison.protocol["lpips_left_out"] in comparison.notes  # 16 pixels are too few for AlexNet
    assert comparison.environment["dtype"] == "float32"
    assert {"device", "threads", "torch", "git_revision", "peak_memory"} <= comparison.environment.keys()


def test_render_is_the_models_own(tiny_stock_run: Path, comparison: Comparison) -> None:
    run = load_run(tiny_stock_run, device="cpu")
    camera = run.pipeline.datamanager.eval_dataset.cameras[1:2]
    rgb = run.model.get_outputs_for_camera(camera)["rgb_fine"].numpy()
    assert np.abs(rgb * 255 - comparison.renders["one"][1]).max() <= 0.5 + 1e-4


def test_swapped_views_change_every_hash(tiny_stock_run: Path) -> None:
    run = load_run(tiny_stock_run, device="cpu")
    assert images_hash(ground_truth(run, [0, 1])) != images_hash(ground_truth(run, [1, 0]))
    assert poses_hash(run, [0, 1]) != poses_hash(run, [1, 0])
    renders = render_views(run, [0, 1]).images
    assert images_hash(renders) != images_hash(renders[::-1])


def test_other_views_are_refused(tiny_stock_run: Path, tiny_blender: Path, tmp_path: Path) -> None:
    """The same run beside itself, with a data set that differs in one respect."""

    def compare_with(data: Path) -> None:
        other = Path(shutil.copytree(tiny_stock_run.parent, data / "run")) / "config.yml"
        config = yaml.load(other.read_text(), Loader=yaml.Loader)
        config.pipeline.datamanager.data = data
        other.write_text(yaml.dump(config))
        evaluate([tiny_stock_run, other], timing=QUICK, device="cpu")

    posed = copy_data(tiny_blender, tmp_path / "posed")
    meta = json.loads((posed / "transforms_test.json").read_text())
    shifted = deepcopy(meta)
    shifted["frames"][0]["transform_matrix"][0][3] += 0.01
    (posed / "transforms_test.json").write_text(json.dumps(shifted))
    with pytest.raises(DataError, match="other camera poses"):
        compare_with(posed)

    fewer = copy_data(tiny_blender, tmp_path / "fewer")
    (fewer / "transforms_test.json").write_text(json.dumps({**meta, "frames": meta["frames"][:2]}))
    with pytest.raises(DataError, match="3 and 2 views"):
        compare_with(fewer)

    painted = copy_data(tiny_blender, tmp_path / "painted")
    Image.new("RGBA", (16, 16), (9, 9, 9, 255)).save(painted / "test" / "r_1.png")
    with pytest.raises(DataError, match="other photographs"):
        compare_with(painted)

    large = copy_data(tiny_blender, tmp_path / "large")
    for file in (large / "test").glob("*.png"):
        Image.new("RGBA", (20, 20)).save(file)
    with pytest.raises(DataError, match="images of 16x16 and 20x20 pixels"):
        compare_with(large)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": ["a"]}, "1 names for 2 runs"),
        ({"names": ["a", "a"]}, "repeated or reserved"),
        ({"names": ["a", "white"]}, "repeated or reserved"),
        ({"names": ["a", "a fast"], "fast": ["a"]}, "two rows would be called 'a fast'"),
        ({"names": ["a 0.5", "a"], "shares": ["a:0.5"]}, "two rows would be called 'a 0.5'"),
        ({"names": ["a", "a bfloat16"], "reduced": ["a:bfloat16"]}, "two rows would be called 'a bfloat16'"),
        ({"baseline": "absent"}, "no run is called 'absent'"),
    ],
)
def test_names_and_baseline(tiny_stock_run: Path, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate([tiny_stock_run, tiny_stock_run], timing=QUICK, device="cpu", **settings)
    with pytest.raises(ConfigError, match="nothing to compare"):
        evaluate([])


def test_json_is_valid_with_infinite_psnr_and_is_not_overwritten(comparison: Comparison, tmp_path: Path) -> None:
    perfect = deepcopy(comparison)
    perfect.rows[0]["psnr"] = float("inf")
    perfect.rows[0]["psnr_per_view"][0] = float("inf")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(to_json(perfect), parse_constant=refuse)
    assert content.keys() == {"rows", "protocol", "environment", "notes", "published"}
    assert content["rows"][0]["psnr"] is None
    assert content["rows"][0]["non_finite"] == {"psnr": "inf"}

    write_report(perfect, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"report.json", "report.html", "renders"}
    with pytest.raises(RunError, match=r"report.json exists.*--overwrite"):
        write_report(comparison, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["rows"][0]["psnr"] is None
    write_report(comparison, tmp_path / "out", overwrite=True)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["rows"][0]["psnr"] > 0


def test_a_place_for_reports_is_looked_at_and_not_made(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b", overwrite=False)
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"as .*file is a file: choose another --output"):
        check_output(tmp_path / "file" / "b", overwrite=False)


def test_html_holds_every_image_and_needs_no_network(comparison: Comparison, tmp_path: Path) -> None:
    page = write_report(comparison, tmp_path, max_views=2)[1].read_text()
    for position in (0, 2):
        assert png_data_uri(comparison.truth[position]) in page
        for images in comparison.renders.values():
            assert png_data_uri(images[position]) in page
            assert png_data_uri(difference_image(images[position], comparison.truth[position])) in page
    assert page.count("<img") == 2 * (2 + 3 * 2)
    bare = re.sub(r"base64,[^\"]*", "", page)
    assert not re.search(r"https?:|//[a-z]|<script [a-z]|<link|@import|url\((?!#)|fetch|import\(", bare)
    assert page.count('class="pair"') == 2
    assert all(colour in page for colour in scale_colours())
    assert f"{FULL_SCALE} and more, of 255" in page
    assert re.findall(r'data-name="([^"]*)"', page) == ["ground truth", "one", "two"] * 2
    assert f"<h1>{headline(comparison.rows, 'one')}</h1>" in page
    for folded in ("Settings", "Environment"):
        assert f"<details><summary>{folded}</summary>" in page
    assert "<svg" in page
    for row in comparison.rows:
        assert row["variant"] in page


def test_differences_are_colours_of_a_scale_that_is_shown() -> None:
    """From black on, ever brighter, up to the last colour, by the channel that differs most."""
    truth = np.full((1, FULL_SCALE + 9, 3), 100, np.uint8)
    render = truth.copy()
    render[0, :, 1] += np.arange(FULL_SCALE + 9, dtype=np.uint8)
    render[0, :, 2] -= 1
    colours = difference_image(render, truth)[0].astype(int)
    assert difference_image(truth, truth).max() <= 4
    assert bool((np.diff(colours[1 : FULL_SCALE + 1].sum(axis=1)) > 0).all())
    assert bool((colours[FULL_SCALE:] == colours[FULL_SCALE]).all())
    np.testing.assert_array_equal(difference_image(truth, render)[0], colours)
    black = np.zeros((1, 1, 3), np.uint8)
    np.testing.assert_array_equal(difference_image(black, 255 - black)[0, 0], colours[-1])
    ends = re.findall(r"#([0-9a-f]{6})", " ".join(scale_colours()))
    assert [bytes.fromhex(ends[i]) for i in (0, -1)] == [
        bytes(difference_image(truth, truth)[0, 0].tolist()),
        bytes(colours[-1].tolist()),
    ]


def test_names_are_escaped(comparison: Comparison, tmp_path: Path) -> None:
    odd = deepcopy(comparison)
    odd.rows[0]["variant"] = "<b>[red]one"
    odd.renders = {"<b>[red]one" if name == "one" else name: images for name, images in odd.renders.items()}
    assert "<b>" not in write_report(odd, tmp_path)[1].read_text()
    console = Console(record=True, width=120)
    print_table(odd, console)
    assert "<b>[red]one" in console.export_text()


def test_command_writes_a_report_and_refuses_a_second(
    tiny_stock_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--load-config", str(tiny_stock_run), str(tiny_stock_run), "--names", "a", "b", "--baseline", "b"]
    arguments += ["--output", str(tmp_path / "out"), "--views", "2", "--repeats", "1", "--warmup", "0"]
    arguments += ["--queries", "64", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["eugen-eval", *arguments])
    command.main()
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["protocol"]["views"] == [0, 2]
    assert content["protocol"]["baseline"] == "b"
    assert content["rows"][0]["predictions_sha256"] == content["rows"][1]["predictions_sha256"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1


def test_protocol_views_reach_the_report(tiny_stock_run: Path) -> None:
    result = evaluate([tiny_stock_run], protocol=Protocol(limit=2), timing=replace(QUICK, repeats=1), device="cpu")
    assert result.views == [0, 2]
    assert len(result.rows[0]["image_seconds"]) == 1
    experiment = tiny_stock_run.parts[-4]
    assert result.rows[0]["variant"] == experiment, "runs are called as the viewer calls them"
