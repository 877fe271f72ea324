"""Scores that do not belong to the images beside them are found, whatever was done to them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eugen_nerf.cli import eval as command
from eugen_nerf.core.errors import RunError
from eugen_nerf.evaluation.compare import Comparison, evaluate
from eugen_nerf.evaluation.protocol import Timing
from eugen_nerf.evaluation.reports.comparison_report import write_report
from eugen_nerf.evaluation.reports.scored_images import image_folders, verify, write_images

QUICK = Timing(warmup=0, repeats=1, num_queries=64, chunk_size=32, split_repeats=1)


@pytest.fixture(scope="module")
def comparison(tiny_stock_run: Path, second_stock_run: Path) -> Comparison:
    return evaluate([tiny_stock_run, second_stock_run], names=["one", "a/../two"], timing=QUICK, device="cpu")


@pytest.fixture
def report(comparison: Comparison, tmp_path: Path) -> Path:
    write_report(comparison, tmp_path / "report")
    return tmp_path / "report" / "report.json"


def test_a_report_fits_its_images(report: Path, comparison: Comparison) -> None:
    assert verify(report) == []
    images = sorted((report.parent / "renders").glob("*/*.png"))
    assert len(images) == 3 * len(comparison.views)
    row = json.loads(report.read_text())["rows"][1]
    assert row["pictures"] == "renders/01-a-..-two", "a name is no path"
    for view, image in zip(comparison.views, comparison.renders["a/../two"], strict=True):
        found = np.asarray(Image.open(report.parent / row["pictures"] / f"{view:04d}.png"))
        np.testing.assert_array_equal(found, image)


def swap_views(folder: Path) -> None:
    first, second = (folder / "00-one" / name for name in ("0000.png", "0001.png"))
    first.rename(folder / "spare.png")
    second.rename(first)
    (folder / "spare.png").rename(second)


def another_background(folder: Path) -> None:
    for path in (folder / "truth").glob("*.png"):
        image = np.array(Image.open(path))
        image[(image == 255).all(axis=2)] = 0
        Image.fromarray(image).save(path)


def brighter_by_one(folder: Path) -> None:
    """What is left of an image that was rounded down instead of to the nearest."""
    image = np.array(Image.open(folder / "00-one" / "0000.png"))
    Image.fromarray(image - (image > 0)).save(folder / "00-one" / "0000.png")


def sixteen_bits(folder: Path) -> None:
    Image.fromarray(np.zeros((16, 16), dtype=np.uint16)).save(folder / "00-one" / "0000.png")


def one_missing(folder: Path) -> None:
    (folder / "00-one" / "0001.png").unlink()


def another_size(folder: Path) -> None:
    Image.new("RGB", (5, 5)).save(folder / "00-one" / "0000.png")


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (swap_views, "one: psnr of view 0 is"),
        (swap_views, "one: the images are not those that were scored"),
        (another_background, "ground truth: the images are not those that were compared with"),
        (another_background, "one: psnr is"),
        (brighter_by_one, "one: the images are not those that were scored"),
        (sixteen_bits, "0000.png: is I;16, not 8-bit RGB"),
        (one_missing, "0001.png: is not there, or no image"),
        (another_size, "one: view 0 is (5, 5), its photograph (16, 16) pixels"),
    ],
)
def test_what_was_done_to_images_is_found(report: Path, spoil: Callable[[Path], None], finding: str) -> None:
    spoil(report.parent / "renders")
    assert any(finding in found for found in verify(report))


@pytest.mark.parametrize("key", ["psnr", "ssim"])
def test_better_scores_than_the_images_are_found(report: Path, key: str) -> None:
    content = json.loads(report.read_text())
    content["rows"][0][key] += 0.01
    content["rows"][1][f"{key}_per_view"][2] += 0.01
    report.write_text(json.dumps(content))
    found = verify(report)
    assert len(found) == 2
    assert found[0].startswith(f"one: {key} is ")
    assert found[1].startswith(f"a/../two: {key} of view 2 is ")


def test_images_outside_of_the_report_are_not_read(report: Path) -> None:
    content = json.loads(report.read_text())
    content["rows"][0]["pictures"] = "../../elsewhere"
    report.write_text(json.dumps(content))
    assert verify(report) == ["../../elsewhere: lies outside of the report's folder"]


def test_the_command_says_what_is_wrong(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.EvalCommand(verify=report).run()
    assert "every hash, PSNR and SSIM" in capsys.readouterr().out
    swap_views(report.parent / "renders")
    with pytest.raises(RunError, match=r"does not fit the images beside it, see above: 7 finding\(s\)"):
        command.EvalCommand(verify=report).run()
    assert "one: psnr of view 1 is" in capsys.readouterr().out


def test_what_is_no_report_is_refused(comparison: Comparison, tmp_path: Path) -> None:
    for content in ("", "{}", "[]", '{"rows": [], "protocol": {}}'):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(RunError, match=r"a\.json (is no report|names no images)"):
            verify(tmp_path / "a.json")
    write_report(comparison, tmp_path / "bare", images=False)
    assert not (tmp_path / "bare" / "renders").exists()
    with pytest.raises(RunError, match="--no-save-images"):
        verify(tmp_path / "bare" / "report.json")


def test_images_that_cannot_be_written_leave_the_older_ones(comparison: Comparison, tmp_path: Path) -> None:
    write_report(comparison, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "elsewhere").touch()
    with pytest.raises(RunError, match="cannot write"):
        write_images(comparison, tmp_path / "elsewhere")
    assert write_images(comparison, tmp_path) == tmp_path / "renders-2"
    assert verify(tmp_path / "report.json") == []
    assert {path: path.read_bytes() for path in before} == before
    assert image_folders(["a", "a b/ü"]) == {"a": "renders/00-a", "a b/ü": "renders/01-a-b-"}


@pytest.mark.parametrize("images", [True, False])
def test_a_replaced_report_has_its_own_images_and_no_others(
    comparison: Comparison, tmp_path: Path, images: bool
) -> None:
    for _ in range(2):
        write_report(comparison, tmp_path, overwrite=True)
    assert verify(tmp_path / "report.json") == []
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.html", "renders-2"}
    write_report(comparison, tmp_path, overwrite=True, images=images)
    assert (tmp_path / "renders").exists() == images
    assert not (tmp_path / "renders-2").exists()


def test_an_older_report_names_no_folder_of_photographs(report: Path) -> None:
    content = json.loads(report.read_text())
    assert content["protocol"].pop("ground_truth_pictures") == "renders/truth"
    report.write_text(json.dumps(content))
    assert verify(report) == []
