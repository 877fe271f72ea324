"""Commands and examples of README and the pages after it, as they stand there, on tiny data and without a GPU."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import command
from tiny_photos import write_corner

ROOT = Path(__file__).parent.parent
COMMANDS = ("README.md", "docs/guides/training.md")
EXAMPLES = (*COMMANDS, "docs/guides/pytorch.md", "docs/guides/conversion.md")
"""Pages whose shell commands run in this order, and those whose Python does."""
ELSEWHERE = ("make ", "pip install ", "python3.11 -m venv ")
"""Commands that make an environment of their own: they are what the tests run in."""
SMALL = {
    "eugen-data scene": "--resolution 16 --num-train 6 --num-val 2 --num-test 2 --supersample 1",
    "eugen-data dynamic": "--resolution 16 --num-train 6 --num-val 2 --num-test 2 --supersample 1",
    "eugen-data room": "--resolution 32 24 --num-frames 12",
    "eugen-data photos": "",
    "ns-train": "--max-num-iterations 2 --vis tensorboard --pipeline.datamanager.train-num-rays-per-batch 64",
    "eugen-render": "--frames 2",
    "eugen-sdf mesh": "--voxel 0.4",
    "eugen-sdf slice": "--voxel 0.4",
    "eugen-sdf volume": "--voxel 0.4",
    "eugen-sdf evaluate": "--points 200 --rays 20 --chamfer-points 200 --voxel 0.4 --timed-rays 10 --repeats 1 "
    "--warmup 0 --slice-voxel 0.4",
    "eugen-distill": "--max-rays 512 --ray-fraction 1",
    "eugen-eval": "--views 1 --repeats 1 --warmup 0 --queries 64 --split-repeats 1 --no-save-images",
    "eugen-view": "--timing --max-size 16",
}
"""What makes each command small; nothing that says how or where it runs."""


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    pages = [(ROOT / name).read_text(encoding="utf8") for name in (COMMANDS if language == "bash" else EXAMPLES)]
    return [
        block for page in pages for block in re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    ]


def shortened(words: list[str]) -> list[str]:
    """A command's words and what makes it small, which belongs before a data parser's."""
    (name,) = (name for name in SMALL if words[: len(name.split())] == name.split())
    place = 2 if name == "ns-train" else len(words)
    return [*words[:place], *SMALL[name].split(), *words[place:]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run."""
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def ran(home: Path, offline: dict[str, str]) -> list[str]:
    """All shell commands of the page, run in order: the runs that they name are those that they trained."""
    pytest.importorskip("pycolmap", reason="the extra `photos` is not installed")
    places: dict[str, Callable[[], Path]] = {"PHOTOS": lambda: write_corner(home / "PHOTOS")}
    runs: list[Path] = []
    done = []
    for line in (line for block in blocks("bash") for line in block.splitlines()):
        if line.startswith(ELSEWHERE):
            continue
        words = shlex.split(line.split(" | ")[0], comments=True)
        if words[-1] != "--help":
            words = shortened(words)
        if words[0] == "eugen-data" and "PHOTOS" in words:
            places.pop("PHOTOS")()
        newest = {"RUN": runs[-1:], "DENSE": runs[1:2], "EUGEN": runs[:1], "A": runs[:1], "B": runs[1:2]}
        newest |= {"RUN_A": runs[-1:], "RUN_B": runs[-1:]}
        if words[0] == "eugen-distill":
            newest["RUN"] = runs[1:2]
        words = [
            str(newest[name][0])
            if word.endswith("/config.yml") and (name := word.removesuffix("/config.yml"))
            else word
            for word in words
        ]
        before = set(home.rglob("config.yml"))
        printed = command({**offline, "RUN_IN": str(home)}, *words)
        done.append(" ".join(words))
        if words[0] == "ns-train" and "--help" not in words:
            assert "torch finds no GPU here: training on the CPU" in printed.stdout
            (new,) = set(home.rglob("config.yml")) - before
            runs.append(new)
        if " | grep " in line:
            assert line.split("|")[1].split()[1] in printed.stdout
    return done


@pytest.mark.long
def test_every_command_of_the_page_runs(ran: list[str]) -> None:
    names = {name for name in SMALL for words in ran if words.startswith(name)}
    assert names == set(SMALL)
    assert sum(words.startswith("ns-train eugen-") for words in ran) >= 6
    assert not any("device" in words for words in ran)


def test_what_is_run_elsewhere_is_there(home: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    for line in lines:
        if line.startswith("make "):
            assert line.split()[1] in targets
        for file in re.findall(r"-c (\S+)", line) if "pip install" in line else ():
            assert (ROOT / file).is_file()


class _Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = torch.nn.Linear(16, 128), torch.nn.Linear(128, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(torch.relu(self.fc1(x)))


class _Model(torch.nn.Module):
    """Has the layers that the page names."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.ModuleDict({"mlp": _Block()}) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block["mlp"](x)  # type: ignore[index]
        return x


def run_example(code: str, **names: object) -> dict[str, object]:
    """The names after an example."""
    found = dict(names)
    exec(compile(code, "an example of the pages", "exec"), found)
    return found


def example(word: str) -> str:
    """The first example that has a word."""
    return next(code for code in blocks("python") if word in code)


def test_the_layer_of_the_example_is_close(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    run_example(example("from_linear"))
    promised = float(re.search(r"# (0\.\d+) of the variance is left", example("from_linear"))[1])  # type: ignore[index]
    assert float(re.search(r"0\.\d+", capsys.readouterr().out)[0]) == pytest.approx(promised, abs=0.005)  # type: ignore[index]
    torch.manual_seed(0)
    full = run_example(
        example("from_linear").replace("torch.randn(4096, 8) @ torch.randn(8, 256) / 8**0.5", "torch.randn(4096, 256)")
    )
    left = float(re.search(r"0\.\d+", capsys.readouterr().out)[0])  # type: ignore[index]
    page = (ROOT / "docs/guides/pytorch.md").read_text(encoding="utf8")
    stated = float(re.search(r"dimensions leave (0\.\d+)", page)[1])  # type: ignore[index]
    assert left == pytest.approx(stated, abs=0.05)
    assert full["outputs"].shape == (4096, 256)  # type: ignore[attr-defined]


def test_a_model_is_converted_in_place() -> None:
    torch.manual_seed(0)
    model = _Model()
    run_example(example("convert_("), model=model, batches=[torch.randn(256, 16) for _ in range(4)])
    assert model.blocks[0]["mlp"].fc2.in_features == 64  # type: ignore[index, union-attr]


def test_a_plan_runs() -> None:
    density, colour = (run_example(example("make_plan"))[name] for name in ("density", "colour"))
    assert (density.shape[0], colour.shape) == (1000, (1000, 3))  # type: ignore[attr-defined]


@pytest.mark.long
def test_a_bundle_is_read(ran: list[str], home: Path, offline: dict[str, str]) -> None:
    dense = next(words.split()[2] for words in ran if words.startswith("eugen-distill"))
    small = ["--num-features", "16", "--max-rays", "512", "--ray-fraction", "1", "--bundle", str(home / "DIR")]
    command({**offline, "RUN_IN": str(home)}, "eugen-distill", "--load-config", dense, *small)
    code = example("load_bundle").replace('"DIR"', repr(str(home / "DIR")))
    points = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    found = run_example(code, positions=torch.rand(5, 3), directions=points)
    assert found["colour"].shape == (5, 3)  # type: ignore[attr-defined]


@pytest.mark.long
def test_a_signed_distance_is_read(ran: list[str], monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.chdir(home)
    run = next(words.split()[3] for words in ran if words.startswith("eugen-sdf mesh"))
    code = example("SignedDistance").replace('"RUN/config.yml"', repr(run))
    assert run_example(code, points=torch.rand(5, 3))["sdf"].distance(torch.rand(7, 3)).shape == (7,)  # type: ignore[attr-defined]
