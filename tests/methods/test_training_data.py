"""The data that a run was trained on are told from another scene's, wherever they lie and however large they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tiny_data import write_blender, write_nerfstudio
from tiny_runs import train_eugen, train_unbounded

from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.runs.loading import load_run
from eugen_nerf.methods.runs.training_data import TRAINING_DATA, TRANSFORMS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and its data set."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "data").mkdir()
    data = write_blender(folder / "data")
    return train_eugen(data, folder / "out")[0], data


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def changed(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "changed"))


def test_the_same_data_open_from_another_place_and_at_another_size(trained: tuple[Path, Path], tmp_path: Path) -> None:
    path, data = trained
    assert json.loads((path.parent / TRAINING_DATA).read_text())["cameras"] == 4
    moved = changed(data, tmp_path)
    load_run(path, device="cpu", data=moved)
    for file in moved.rglob("*.png"):
        Image.open(file).resize((8, 8), Image.Resampling.BOX).save(file)
    load_run(path, device="cpu", data=moved)
    load_run(path, device="cpu", data=moved, test_mode="inference")


def test_other_cameras_another_number_of_them_and_other_photographs_are_refused(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    path, data = trained
    turned, fewer, painted = (changed(data, tmp_path / name) for name in ("turned", "fewer", "painted"))

    def move(meta: dict) -> None:
        meta["frames"][2]["transform_matrix"][0][3] += 0.1

    edit_json(turned / "transforms_train.json", move)
    edit_json(fewer / "transforms_train.json", lambda meta: meta["frames"].pop())
    for file in painted.rglob("*.png"):
        Image.new("RGBA", (16, 16), (0, 0, 0, 255)).save(file)
    for other, what in ((turned, "other places"), (fewer, "3 training cameras, the run's had 4"), (painted, "colours")):
        with pytest.raises(RunError, match=f"not the data that the run was trained on.*{what}.*--data") as caught:
            load_run(path, device="cpu", data=other)
        assert "\n" not in str(caught.value)
    load_run(path, device="cpu", data=painted, test_mode="inference")  # photographs are not read
    kept = Path(shutil.copytree(path.parent, tmp_path / "without")) / "config.yml"
    (kept.parent / TRAINING_DATA).unlink()
    load_run(kept, device="cpu", data=turned)  # a run of an older version remembers nothing


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[",
        "[]",
        "3",
        '{"cameras": 4}',
        '{"positions": [[1, 2, "x"]], "cameras": 4}',
        '{"positions": [[1e999, 0, 0]], "cameras": 4}',
        "[" * 5000,
        '{"a": ' * 5000,
    ],
)
@pytest.mark.parametrize("name", [TRAINING_DATA, TRANSFORMS])
def test_damaged_files_are_named(trained: tuple[Path, Path], tmp_path: Path, name: str, content: str) -> None:
    path, _ = trained
    kept = Path(shutil.copytree(path.parent, tmp_path / "run")) / "config.yml"
    (kept.parent / name).write_text(content)
    with pytest.raises(RunError, match=rf"{name} is damaged"):
        load_run(kept, device="cpu")
    (kept.parent / name).unlink()
    (kept.parent / name).mkdir()
    with pytest.raises(RunError, match=rf"{name} is damaged"):
        load_run(kept, device="cpu")


def test_the_place_that_nerfstudio_writes_tells_scenes_apart(tmp_path: Path) -> None:
    """Also of stock runs, and of runs from before this package kept anything."""
    (tmp_path / "data").mkdir()
    data = write_nerfstudio(tmp_path / "data")
    path, _ = train_unbounded(data, tmp_path / "out", method="eugen-mipnerf360-small")
    assert (path.parent / TRANSFORMS).is_file()
    (path.parent / TRAINING_DATA).unlink()
    load_run(path, device="cpu", test_mode="inference")

    def farther(meta: dict) -> None:
        for frame in meta["frames"]:
            frame["transform_matrix"][0][3] *= 1.5

    edit_json(data / "transforms.json", farther)
    with pytest.raises(RunError, match="placed elsewhere or at another scale"):
        load_run(path, device="cpu", test_mode="inference")
