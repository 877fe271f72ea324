"""Every command that writes, on golden runs: what it is given, and whether what lies there afterwards is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import yaml
from attempts import attempt

from eugen_nerf.core import load_bundle
from eugen_nerf.evaluation.reports.scored_images import verify
from eugen_nerf.methods.runs.checkpoints import checkpoint_files, read_checkpoint, read_latest_checkpoint
from eugen_nerf.methods.runs.loading import read_config

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
NERF, DENSE, ISDF, DNERF, MIPNERF360, ZIPNERF, HASH = (
    f"runs/{run}/{method}-small/golden/config.yml"
    for run, method in (
        ("nerf-merged", "eugen-nerf"), ("nerf-dense", "eugen-nerf"), ("isdf-factors", "eugen-isdf"),
        ("dnerf-factors", "eugen-dnerf"), ("mipnerf360-merged", "eugen-mipnerf360"),
        ("zipnerf-merged", "eugen-zipnerf"), ("dnerf-hash-merged", "eugen-dnerf-hash"),
    )
)  # fmt: skip
Check = Callable[[Path], "str | None"]
"""What is wrong in a folder; an empty text where a whole result is there, None where there is none."""


@dataclass(frozen=True)
class Writer:
    """A command that writes, with one set of arguments."""

    what: str
    """As tables name it."""
    words: tuple[str, ...]
    check: Check
    before: tuple[str, ...] = ()
    """A command whose result it replaces."""
    resume: Callable[[Path], tuple[str, ...]] | None = None
    """What goes on after it was stopped, in a folder, where that is another command than the same."""
    prepare: Callable[[Path], None] = lambda folder: None
    """Writes what the command reads besides."""
    most: int | None = None
    """Largest number of tries of a kind, for commands that start processes; all calls where None."""

    def folder(self, place: Path) -> Path:
        """A new folder with data and golden runs, and the older result."""
        place.mkdir(parents=True)
        (place / "data").symlink_to(GOLDEN / "data")
        (place / "runs").symlink_to(GOLDEN / "runs")
        (place / "bundles").symlink_to(GOLDEN / "bundles")
        self.prepare(place)
        if self.before:
            done = attempt(self.before, place)
            assert done.status == 0, done.output + done.errors
        return place


def digest(path: Path) -> str | None:
    """Of a file, or of a folder with all in it; None where nothing is there."""
    if not path.exists():
        return None
    total = hashlib.sha256()
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        total.update(str(each.relative_to(path.parent)).encode() + b"\0")
        total.update(each.read_bytes() if each.is_file() else b"")
    return total.hexdigest()


class OneOf:
    """Whether a path holds, byte for byte, what some commands write when nothing disturbs them."""

    def __init__(self, name: str, *commands: tuple[str, ...]) -> None:
        self.name, self.commands = name, [command for command in commands if command]
        self.known: set[str | None] = set()

    def learn(self, place: Path) -> None:
        """Runs the commands in a folder each."""
        for number, words in enumerate(self.commands):
            folder = Writer("", words, lambda _: None).folder(place / f"known-{number}")
            done = attempt(words, folder)
            assert done.status == 0, done.output + done.errors
            self.known.add(digest(folder / self.name))

    def __call__(self, folder: Path) -> str | None:
        """As `Check`."""
        if not self.known:
            self.learn(folder.parent / f"{folder.name}-known")
        found = digest(folder / self.name)
        return None if found is None else "" if found in self.known else f"{self.name} is neither the old nor the new"


def rendered(name: str, *words: str, before: tuple[str, ...] = ()) -> Writer:
    """`eugen-render` into a file or folder; an older one is of another path of the camera."""
    # without the fast renderer, which would be kept beside the golden run itself
    common = ("eugen-render", "--load-config", NERF, "--output", name, "--device", "cpu", "--exact")
    new = (*common, "--path", "orbit", *words)
    old = (*common, "--path", "spiral", *words[:2]) if before else ()
    return Writer(f"eugen-render {name}", new, OneOf(name, new, old), old)


def paged(name: str, *words: str) -> Writer:
    """`eugen-web` of a bundle into a file or folder; an older one has another title."""
    common = ("eugen-web", "bundles/rendered", "--output", name, *words)
    new, old = (*common, "--overwrite"), (*common, "--title", "older")
    return Writer(f"eugen-web {name}", new, OneOf(name, new, old), old)


def surface(command: str, name: str) -> Writer:
    """`eugen-sdf` into a file; an older one has larger cells."""
    common = ("eugen-sdf", command, "--load-config", ISDF, "--output", name, "--device", "cpu", "--voxel")
    new, old = (*common, "0.2", "--overwrite"), (*common, "0.3")
    return Writer(f"eugen-sdf {command}", new, OneOf(name, new, old), old)


def generated(kind: str, *words: str) -> Writer:
    """`eugen-data` into a folder; an older one has another seed."""
    common = ("eugen-data", kind, "--output", "made", *words)
    new, old = (*common, "--overwrite"), (*common, "--seed", "1")
    return Writer(f"eugen-data {kind}", new, OneOf("made", new, old), old)


def reported(words: tuple[str, ...], before: tuple[str, ...], check: Check) -> Writer:
    """`eugen-eval` or `eugen-sdf evaluate` in place of an older report."""
    return Writer(words[0] if words[1].startswith("-") else " ".join(words[:2]), words, check, before)


def evaluated(folder: Path) -> str | None:
    """Whether a report has its own images; a page beside it may be missing."""
    report = folder / "report" / "report.json"
    if not report.exists():
        return None
    wrong = verify(report)
    page = report.with_suffix(".html")
    rows = json.loads(report.read_text())["rows"]
    if page.exists() and not all(f"{row['psnr']:.2f}" in page.read_text() for row in rows if row["psnr"]):
        wrong.append("the page is of another report")
    return "; ".join(wrong)


def measured(folder: Path) -> str | None:
    """Whether `eugen-sdf evaluate` left files of one comparison."""
    report = folder / "report" / "report.json"
    if not report.exists():
        return None
    names = [row["variant"] for row in json.loads(report.read_text())["rows"]]
    page = report.with_suffix(".html")
    if page.exists() and f"Signed distances of {', '.join(names)}<" not in page.read_text():
        return "the page is of another report"
    return ""


def listed(name: str, key: str) -> Check:
    """Whether a JSON file has rows under a key."""

    def check(folder: Path) -> str | None:
        path = folder / name
        if not path.exists():
            return None
        return "" if json.loads(path.read_text())[key] else f"{name} has no {key}"

    return check


def trained(folder: Path) -> str | None:
    """Whether training can go on from what is there: a config, and checkpoints that are all whole."""
    for config in folder.glob("new/*/*/*/config.yml"):
        read_config(config)
        for checkpoint in checkpoint_files(config.parent / "nerfstudio_models"):
            read_checkpoint(checkpoint)
            return ""
    return None


def going_on(folder: Path) -> tuple[str, ...]:
    """`ns-train` from what is there, or anew where there is no checkpoint yet."""
    start = folder / "train.yml"
    text = yaml.unsafe_load(start.read_text())
    if trained(folder) is not None:
        text.load_dir = next(folder.glob("new/*/*/*/nerfstudio_models"))
        text.max_num_iterations = 6 - read_latest_checkpoint(text.load_dir)[1]["step"]
    (folder / "on.yml").write_text(yaml.dump(text))
    return ("ns-train", text.method_name, "--load-config", "on.yml")


def training(run: str) -> Writer:
    """`ns-train` with a checkpoint at every second step."""

    def prepare(folder: Path) -> None:
        config = yaml.unsafe_load((GOLDEN / run).read_text())
        config.output_dir, config.max_num_iterations, config.steps_per_save = Path("new"), 5, 2
        config.timestamp = "run"
        (folder / "train.yml").write_text(yaml.dump(config))

    method = run.split("/")[2]
    words = ("ns-train", method, "--load-config", "train.yml")
    return Writer(f"ns-train {method}", words, trained, resume=going_on, prepare=prepare)


def converted(run: str, *more: str, bundle: bool = False) -> Writer:
    """`eugen-distill`; the run, and the bundle, are whole or absent."""

    def check(folder: Path) -> str | None:
        configs = [*folder.glob("new/*/*/t/config.yml")]
        for config in configs:
            read_config(config)
            read_config(config.with_name("train.yml"))
            json.loads(config.with_name("distill.json").read_text())
            read_latest_checkpoint(config.parent / "nerfstudio_models")
        if (folder / "bundle").exists():
            load_bundle(folder / "bundle")
        elif bundle:
            return None
        return "" if configs else None

    words = ("eugen-distill", "--load-config", run, "--ray-fraction", "1", "--max-rays", "400", "--num-features", "5",
             "--output-dir", "new", "--timestamp", "t", "--device", "cpu")  # fmt: skip
    name = f"eugen-distill {run.split('/')[2]}" + (", with a bundle" if bundle else "")
    return Writer(name, (*words, *more, *(("--bundle", "bundle") if bundle else ())), check)


def clicked(folder: Path) -> str | None:
    """Whether captures are whole, and a saved run too; the last thing that is written stands for all."""
    for path in folder.glob("captures/[!.]*"):
        if path.suffix == ".json":
            assert len(json.loads(path.read_text())["camera_path"]) == 4
        else:
            assert len(iio.imread(path)) == (16 if path.suffix == ".png" else 3)
    for config in folder.glob("new/*/*/[!.]*/config.yml"):
        read_config(config)
        read_latest_checkpoint(config.parent / "nerfstudio_models")
        return ""
    return None


def in_suite(text: str, check: Check, what: str) -> Writer:
    """`eugen-bench` on a suite; what is done is not done again. Each step is a process that imports everything."""
    words = ("eugen-bench", "suite.yml")
    return Writer(what, words, check, resume=lambda folder: words,
                  prepare=lambda folder: (folder / "suite.yml").write_text(text), most=SLOW)  # fmt: skip


FEW = ("--resolution", "12", "--num-train", "2", "--num-val", "1", "--num-test", "1")
QUICK = ("--repeats", "1", "--warmup", "0")
EVAL = ("eugen-eval", "--output", "report", "--device", "cpu", *QUICK, "--queries", "64", "--split-repeats", "1")
SDF = ("eugen-sdf", "evaluate", "--load-config", ISDF, "--output", "report", "--device", "cpu", *QUICK, "--points",
       "200", "--rays", "20", "--chamfer-points", "100", "--voxel", "0.3", "--slice-voxel", "0.3", "--timed-rays",
       "8")  # fmt: skip
SPEED = ("eugen-bench", "speed", "--output", "speed.json", "--families", "isdf", "--scale", "0.01", "--repeats", "1",
         "--no-compile", "--image", "0")  # fmt: skip
ROOFLINE = ("eugen-bench", "roofline", "--methods", "eugen-isdf", "--variants", "eugen", "--modes", "train",
            "--precisions", "tf32", "--output", "roofline.json")  # fmt: skip
VIEW = (str(Path(__file__).with_name("viewer_writes.py")), DENSE)
SLOW = 5
"""Tries of a kind with commands whose steps are processes: each takes ten seconds and more."""
STUDY = """{name: tiny, output: out, study: variance, workers: 1, settings: {width: 8, outputs: 4, points: 8, draws: 1,
  features: [2], functions: [relu], degrees: [1], projections: [gaussian, orthogonal]}}
"""
SUITE = """name: tiny
output: out
method: eugen-nerf-small
data: data/scene
workers: 1
runs: {dense: [--pipeline.model.variant, dense]}
train: [--machine.device-type, cpu, --max-num-iterations, "2", --pipeline.datamanager.train-num-rays-per-batch, "32",
  --pipeline.model.num-coarse-samples, "4", --pipeline.model.num-importance-samples, "4", --logging.local-writer.enable,
  "False", --pipeline.model.network.trunk-width, "16", --pipeline.model.occupancy, none]
evaluate: [--device, cpu, --repeats, "1", --warmup, "0", --queries, "64", --split-repeats, "1"]
"""
WRITERS = (
    generated("scene", *FEW),
    generated("dynamic", *FEW),
    generated("room", "--num-frames", "2", "--num-objects", "1", "--resolution", "20", "15"),
    *(training(run) for run in (NERF, DNERF, HASH, MIPNERF360, ZIPNERF, ISDF)),
    converted(DENSE),
    *(converted(run, "--layers", "trunk_0") for run in (ZIPNERF, ISDF)),
    converted(DENSE, bundle=True),
    reported((*EVAL, "--load-config", NERF, "--overwrite"), (*EVAL, "--load-config", DENSE), evaluated),
    rendered("film.gif", "--frames", "3", "--overwrite", before=("yes",)),
    rendered("film.mp4", "--frames", "3", "--overwrite", before=("yes",)),
    rendered("strip.png", "--frames", "3", "--overwrite", before=("yes",)),
    rendered("frames", "--frames", "3"),
    paged("page.html"),
    paged("page", "--folder"),
    surface("mesh", "mesh.ply"),
    surface("slice", "slice.png"),
    surface("volume", "volume.npz"),
    reported((*SDF, "--names", "new", "--overwrite"), (*SDF, "--names", "old"), measured),
    Writer("eugen-bench speed", (*SPEED, "--overwrite"), listed("speed.json", "queries"), SPEED),
    Writer("eugen-bench roofline", (*ROOFLINE, "--overwrite"), listed("roofline.json", "rows"), ROOFLINE),
    in_suite(STUDY, listed("out/report/report.json", "rows"), "eugen-bench, a study"),
    in_suite(SUITE, listed("out/report/report.json", "rows"), "eugen-bench, a suite"),
    Writer("eugen-view, saved by clicks", VIEW, clicked, resume=lambda folder: VIEW),
)
