"""What a command loads before it says anything: its help and errors of its arguments wait for no heavy package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    *("torch", "torchvision", "torchmetrics", "nerfstudio", "lpips", "viser", "open3d", "matplotlib", "scipy"),
    *("skimage", "cv2", "trimesh", "imageio", "av", "pycolmap", "onnx", "triton", "gdown"),
}
RUN = """
import atexit, json, sys
from pathlib import Path
place = Path(sys.argv.pop())
atexit.register(lambda: place.write_text(json.dumps(sorted(sys.modules))))
from eugen_nerf.cli.{module} import main
main()
"""
COMMANDS = ("bench", "data", "distill", "eval", "render", "sdf", "view", "web")
WORDS = {
    "bench": ("speed", "roofline"),
    "data": ("scene", "dynamic", "room", "fetch", "check", "photos"),
    "sdf": ("mesh", "slice", "volume", "evaluate"),
}
HELP = [(command, ()) for command in COMMANDS] + [(c, (word,)) for c, words in WORDS.items() for word in words]
RUN_AT = "--load-config"
WRONG = [
    ("bench", ("nowhere.yml",), r"nowhere\.yml is no suite"),
    ("bench", ("speed", RUN_AT, "nowhere"), "no run at nowhere"),
    ("bench", ("speed", "--output", "taken"), "taken exists"),
    ("bench", ("roofline", "--output", "taken"), "taken exists"),
    ("data", ("check", "nowhere"), "nowhere"),
    ("data", ("photos", "nowhere"), "no folder of photographs at nowhere"),
    ("distill", (RUN_AT, "nowhere"), "no run at nowhere"),
    ("distill", (RUN_AT, "."), r"\. is a folder: give the config\.yml inside it"),
    ("distill", (RUN_AT, "taken"), "taken is no configuration of a run"),
    ("distill", (RUN_AT, "run", "--data", "nowhere"), "--data nowhere does not exist"),
    ("distill", (RUN_AT, "run", "--bundle", "taken"), "taken exists"),
    ("distill", (RUN_AT, "run", "--macs", "0.5", "--speedup", "2"), "two budgets"),
    ("eval", (), "give the config.yml of at least one run"),
    ("eval", (RUN_AT, "taken"), "taken is no configuration of a run"),
    ("eval", (RUN_AT, "run", "nowhere"), "no run at nowhere"),
    ("eval", (RUN_AT, "run", "--output", "taken"), "taken exists and is a file, not a folder"),
    ("eval", (RUN_AT, "run", "--data", "nowhere"), "--data nowhere does not exist"),
    ("eval", ("--verify", "nowhere"), "no report at nowhere"),
    ("render", (RUN_AT, "nowhere", "--output", "a.mp4"), "no run at nowhere"),
    ("render", (RUN_AT, "run", "--output", "a.doc"), r"a\.doc is no \.mp4"),
    ("sdf", ("mesh", RUN_AT, "nowhere"), "no run at nowhere"),
    ("sdf", ("slice", RUN_AT, "nowhere"), "no run at nowhere"),
    ("sdf", ("volume", RUN_AT, "run", "--output", "a.txt"), r"a\.txt must end in \.npz"),
    ("sdf", ("evaluate", RUN_AT, "run", "nowhere"), "no run at nowhere"),
    ("view", (RUN_AT, "nowhere"), "no run at nowhere"),
    ("view", (RUN_AT, "run", "--data", "nowhere"), "--data nowhere does not exist"),
    ("view", (RUN_AT, "run", "--save-page", "taken"), r"taken is no \.html file"),
    ("view", (RUN_AT, "run", "--save-page", "a.html", "--exact"), "leave out --exact"),
    ("view", (RUN_AT, "run", "--overwrite"), "--overwrite replaces a page: give --save-page too"),
    ("web", ("--output", "a.html"), "one field or two, not 0"),
    ("web", ("run", "run", "run", "--output", "a.html"), "one field or two, not 3"),
    ("web", ("nowhere", "--output", "a.html"), "no run at nowhere"),
    ("web", (".", "--output", "a.html"), r"\. holds neither bundle\.json nor config\.yml"),
    ("web", ("taken", "--output", "a.html"), "taken is no configuration of a run"),
    ("web", ("run", "--output", "a.htm/b.png"), r"b\.png is no \.html file"),
    ("web", ("run", "--output", "taken", "--folder"), "taken exists and is a file, not a folder"),
    ("web", ("run", "--output", "a.html", "--names", "a", "b"), "2 names for 1 fields"),
    ("web", ("run", "--output", "a.html", "--data", "nowhere"), "--data nowhere does not exist"),
]


def start(folder: Path, module: str, *words: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """A command run to its end beside files called taken and run, and the top-level packages that it loaded.

    `run` begins as a run's configuration does.
    """
    (folder / "taken").touch()
    (folder / "run").write_text("!!python/object:nerfstudio.engine.trainer.TrainerConfig\n", encoding="utf8")
    command = [sys.executable, "-c", RUN.format(module=module), *words, str(folder / "loaded.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    loaded = {name.split(".")[0] for name in json.loads((folder / "loaded.json").read_text())}
    assert "tyro" in loaded  # the list is of this process
    return done, loaded


@pytest.mark.parametrize(
    ("module", "words"), HELP, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_help_loads_nothing_heavy_and_is_grouped(tmp_path: Path, module: str, words: tuple[str, ...]) -> None:
    done, loaded = start(tmp_path, module, *words, "--help")
    assert done.returncode == 0
    assert not loaded & HEAVY
    assert not done.stderr
    assert done.stdout.startswith(f"usage: {' '.join([f'eugen-{module}', *words])} [-h]")
    for option in re.split(r"\n│ (?=--)", done.stdout)[1:]:
        text = " ".join(re.sub(r"[│╭╰─╮╯]", " ", option).split())
        allowed = 2 if text.startswith("--layers") else 1  # of one kind of runs, and of another
        assert len(re.findall(r"\bdefault\b", text)) <= allowed, text
        assert "None" not in text
    if len(re.findall(r"\n│ --", done.stdout)) > 12:
        assert len(re.findall("╭─", done.stdout)) > 1


@pytest.mark.parametrize(("module", "words", "message"), WRONG)
def test_errors_of_paths_load_nothing_heavy(tmp_path: Path, module: str, words: tuple[str, ...], message: str) -> None:
    done, loaded = start(tmp_path, module, *words)
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(rf"error: .*{message}.*\n", done.stderr), done.stderr
    assert not loaded & HEAVY
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "run", "loaded.json"}
