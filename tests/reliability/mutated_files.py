"""Files of every kind that this package reads, changed at random: each is refused in one line, or read and sane."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from bundles import RENDERED, evaluate, make, with_scene
from mutators import damage, header_of, rewrite, rewrite_json, rewrite_words, rewrite_yaml, with_header
from nerfstudio.engine.trainer import TrainerConfig
from PIL import Image
from rgbd_sequences import LENS

from eugen_nerf.cli.study import is_study, read_study
from eugen_nerf.cli.suite import _conversion, _evaluation, _training, parts
from eugen_nerf.cli.suite_file import read_suite
from eugen_nerf.core import load_bundle, save_bundle
from eugen_nerf.core.errors import EugenError
from eugen_nerf.data.checks import check_blender_directory, check_image_directory
from eugen_nerf.data.rgbd.rgbd_sequence import inspect_sequence, read_sequence
from eugen_nerf.data.rgbd.rgbd_types import SequenceOptions
from eugen_nerf.data.synthetic.room import Room, RoomPart, read_room, write_room
from eugen_nerf.data.synthetic.solids import Box, Cylinder, Sphere
from eugen_nerf.evaluation.images.view_rendering import images_hash
from eugen_nerf.evaluation.reports.scored_images import FOLDER, TRUTH, verify
from eugen_nerf.evaluation.statistics.published import read_published
from eugen_nerf.methods.runs.checkpoints import load_weights, read_latest_checkpoint
from eugen_nerf.methods.runs.image_metrics import psnr, ssim
from eugen_nerf.methods.runs.loading import read_config

METRICS = {"psnr": psnr, "ssim": ssim}
GOLDEN = Path(__file__).resolve().parent.parent / "golden"
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LONGEST = 700
"""Characters of a message."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        prepare: writes whole files into an empty folder.
        change: changes them at random.
        read: reads them as a command does; raises `EugenError` or AssertionError, the latter for nonsense.
    """

    prepare: Callable[[Path], None]
    change: Callable[[Path, random.Random], None]
    read: Callable[[Path], None]


def attempt(kind: Kind, whole: Path, folder: Path, chance: random.Random) -> str:
    """What becomes of one changed copy: ``refused``, ``accepted``, ``nonsense``, or else the exception's class."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    kind.change(folder, chance)
    try:
        kind.read(folder)
    except EugenError as error:
        message = str(error)
        try:
            message.encode()  # it can be printed
        except UnicodeEncodeError:
            return "UnicodeEncodeError"
        return "refused" if "\n" not in message and len(message) < LONGEST else "long message"
    except AssertionError:
        return "nonsense"
    except Exception as error:
        return type(error).__name__
    return "accepted"


def _change_bundle(folder: Path, chance: random.Random) -> None:
    description, weights = folder / "bundle.json", folder / "weights.safetensors"
    match chance.choice(["description", "weights", "document", "header"]):
        case "description":
            description.write_bytes(damage(description.read_bytes(), chance, 1 << 20))
        case "weights":
            content = weights.read_bytes()
            weights.write_bytes(damage(content, chance, 8 + int.from_bytes(content[:8], "little")))
        case "document":
            description.write_bytes(rewrite_json(json.loads(description.read_text()), chance))
        case _:
            header, numbers = header_of(weights.read_bytes())
            weights.write_bytes(with_header(rewrite_json(header, chance), numbers))


def _read_bundle(folder: Path) -> None:
    field = load_bundle(folder)
    assert all(bool(tensor.isfinite().all()) for tensor in field.state_dict().values())
    evaluate(field)
    for camera in field.cameras[:1]:
        if camera.width < 100 * camera.height:  # what is kept of it stays small
            image = field.render(camera.resized(2))
            assert image.colour.shape[-1] == 3


def bundle(kind: str) -> Kind:
    """A bundle of a kind of `bundles.py`, with a scene where it can have one."""

    def prepare(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        save_bundle(with_scene(kind) if kind in RENDERED else make(kind), folder)

    return Kind(prepare, _change_bundle, _read_bundle)


def suite(name: str) -> Kind:
    """A suite of `configs/`, or a study."""

    def prepare(folder: Path) -> None:
        shutil.copy(CONFIGS / f"{name}.yml", folder / "s.yml")

    def change(folder: Path, chance: random.Random) -> None:
        path = folder / "s.yml"
        content = path.read_bytes()
        match chance.choice(["bytes", "lines", "lines", "values", "values"]):
            case "bytes":
                path.write_bytes(damage(content, chance, 200))
            case "lines":
                path.write_bytes(rewrite_yaml(content.decode(), chance))
            case _:
                document = rewrite(yaml.safe_load(content), chance)
                path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf8", errors="surrogatepass")

    return Kind(prepare, change, _read_suite)


def _read_suite(folder: Path) -> None:
    path = folder / "s.yml"
    if is_study(path):
        described, study = read_study(path)
        assert described.workers >= 1
        assert all(isinstance(case["variant"], str) for case in study.cases())
        return
    for part in parts(read_suite(path)):
        own = part.suite
        jobs = [_training(own, name, Path("d")) for name in own.runs]
        jobs += [_conversion(own, name) for name in own.distilled]
        report = folder / "report"
        words = [word for job in jobs for word in job.command]
        words += [] if own.published else _evaluation(own, report)
        assert all(isinstance(word, str) and "\0" not in word and word.encode() is not None for word in words)
        places = [job.result.parent.parent.parent.parent for job in jobs]
        assert set(places) <= {own.output / "runs"}  # no run lies elsewhere, whatever it is called
        assert len({job.result for job in jobs}) == len(jobs)


def config(name: str) -> Kind:
    """The `config.yml` of a golden run."""
    (source,) = GOLDEN.glob(f"runs/{name}/*/golden/config.yml")

    def change(folder: Path, chance: random.Random) -> None:
        path = folder / "config.yml"
        content = path.read_bytes()
        changed = damage(content, chance, 1000) if chance.random() < 0.3 else rewrite_yaml(content.decode(), chance)
        path.write_bytes(changed)

    def read(folder: Path) -> None:
        assert isinstance(read_config(folder / "config.yml"), TrainerConfig)

    return Kind(lambda folder: shutil.copy(source, folder) and None, change, read)


class Pipeline(torch.nn.Module):
    """As much of a pipeline as weights are loaded into."""

    def __init__(self) -> None:
        super().__init__()
        self._model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        self._model.update_to_step = lambda step: None  # type: ignore[assignment]

    @property
    def model(self) -> torch.nn.Module:
        """The model."""
        return self._model


def _strange_tensors() -> list[Any]:
    return [
        *(torch.zeros(0), torch.zeros(4, 3, dtype=torch.int8), torch.full((4, 3), torch.nan), torch.zeros(4, 3).half()),
        *(torch.full((4, 3), torch.inf), torch.zeros(4, 3, dtype=torch.complex64), torch.zeros(4, 3).to_sparse()),
        *(torch.zeros(4, 3).bool(), torch.zeros(3, 4), None, "text", 3, [1.0], {"a": 1}, torch.zeros(())),
    ]


def _change_checkpoint(folder: Path, chance: random.Random) -> None:
    path = folder / "step-000000003.ckpt"
    if chance.random() < 0.6:
        path.write_bytes(damage(path.read_bytes(), chance, 400))
        return
    state = torch.load(path, weights_only=True)
    keys = list(state["pipeline"])
    match chance.choice(["tensor", "tensor", "missing", "extra", "step", "whole"]):
        case "tensor":
            state["pipeline"][chance.choice(keys)] = chance.choice(_strange_tensors())
        case "missing":
            del state["pipeline"][chance.choice(keys)]
        case "extra":
            state["pipeline"][chance.choice([1, "_model.x", "y", "", "_model."])] = chance.choice(_strange_tensors())
        case "step":
            state["step"] = chance.choice([None, -1, True, "3", 10**30, 2.5, torch.tensor(3), [3]])
        case _:
            state = chance.choice([None, [], {}, torch.zeros(3), {"step": 3}, {"pipeline": None, "step": 3}, "x", 3])
    torch.save(state, path)


def _read_checkpoint(folder: Path) -> None:
    path, state = read_latest_checkpoint(folder)
    pipeline = Pipeline()
    load_weights(pipeline, state["pipeline"], state["step"], path, check_data_state=True)  # type: ignore[arg-type]
    assert all(bool(parameter.isfinite().all()) for parameter in pipeline.parameters())


CHECKPOINT = Kind(
    lambda folder: torch.save({"step": 3, "pipeline": Pipeline().state_dict()}, folder / "step-000000003.ckpt"),
    _change_checkpoint,
    _read_checkpoint,
)


def data_set(write: Callable[[Path], object], check: Callable[[Path], Any]) -> Kind:
    """A data set whose documents are changed, and sometimes an image."""

    def change(folder: Path, chance: random.Random) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        documents = [path for path in files if path.suffix in (".json", ".txt", ".bin")]
        images = [path for path in files if path not in documents]
        path = chance.choice(documents)
        match chance.choice(["bytes", "document", "document", "document", "image", "gone", "folder"]):
            case "bytes":
                path.write_bytes(damage(path.read_bytes(), chance, 300))
            case "document" if path.suffix == ".json":
                path.write_bytes(rewrite_json(json.loads(path.read_text()), chance))
            case "document" if path.suffix == ".txt":
                path.write_bytes(rewrite_words(path.read_text(), chance))
            case "image" | "document":
                image = chance.choice(images)
                image.write_bytes(damage(image.read_bytes(), chance, 60))
            case "gone":
                chance.choice([*images, path]).unlink()
            case _:
                gone = chance.choice([*images, path])
                gone.unlink()
                gone.mkdir()

    return Kind(lambda folder: write(folder) and None, change, lambda folder: check(folder) and None)


def published() -> Kind:
    """A file of published results."""
    rows = [{"text": "t", "source": "s", "beside": "a", "differs": "d", "claim": "psnr: a > b + 1"}] * 2

    def change(folder: Path, chance: random.Random) -> None:
        path = folder / "p.json"
        content = path.read_bytes()
        path.write_bytes(
            damage(content, chance, 500) if chance.random() < 0.4 else json.dumps(
                rewrite({"rows": json.loads(content)}, chance).get("rows")).encode()
        )  # fmt: skip

    def read(folder: Path) -> None:
        for row in read_published(folder / "p.json"):
            assert all(isinstance(value, str) for value in row.values())

    return Kind(lambda folder: (folder / "p.json").write_text(json.dumps(rows)) and None, change, read)


def _write_report(folder: Path) -> None:
    chance = np.random.default_rng(0)
    truth, images = ([chance.integers(0, 255, (16, 16, 3), dtype=np.uint8) for _ in range(2)] for _ in range(2))
    for name, kept in ((TRUTH, truth), ("00-a", images)):
        (folder / FOLDER / name).mkdir(parents=True)
        for view, image in enumerate(kept):
            Image.fromarray(image).save(folder / FOLDER / name / f"{view:04d}.png")
    scores = {name: [metric(a, b) for a, b in zip(images, truth, strict=True)] for name, metric in METRICS.items()}
    row = {f"{name}_per_view": values for name, values in scores.items()}
    row |= {name: float(np.mean(values)) for name, values in scores.items()}
    row |= {"variant": "a", "pictures": f"{FOLDER}/00-a", "predictions_sha256": images_hash(images)}
    protocol = {"views": [0, 1], "ground_truth_sha256": images_hash(truth)}
    (folder / "report.json").write_text(json.dumps({"rows": [row, {"variant": "white"}], "protocol": protocol}))
    assert verify(folder / "report.json") == []


def _change_report(folder: Path, chance: random.Random) -> None:
    path, images = folder / "report.json", sorted(folder.rglob("*.png"))
    match chance.choice(["bytes", "document", "document", "image"]):
        case "bytes":
            path.write_bytes(damage(path.read_bytes(), chance, 1000))
        case "document":
            path.write_bytes(rewrite_json(json.loads(path.read_text()), chance))
        case _:
            image = chance.choice(images)
            image.write_bytes(damage(image.read_bytes(), chance, 60))


REPORT = Kind(_write_report, _change_report, lambda folder: verify(folder / "report.json") and None)
"""A report as `eugen-eval --verify` reads it: what does not fit is a finding, which is no error."""


def _change_room(folder: Path, chance: random.Random) -> None:
    path = folder / "room.json"
    content = path.read_bytes()
    changed = damage(content, chance, 1000) if chance.random() < 0.3 else rewrite_json(json.loads(content), chance)
    path.write_bytes(changed)


def _read_room(folder: Path) -> None:
    room = read_room(folder / "room.json")
    assert bool(np.isfinite(room.distance(np.zeros((1, 3)))).all())


A_ROOM = Room(
    Box((0.0, 0.0, 1.0), (2.0, 2.0, 1.0)),
    (
        RoomPart("ball", Sphere((0.5, 0.5, 0.3), 0.3), (1.0, 0.5, 0.0)),
        RoomPart("post", Cylinder((-0.5, 0.5, 0.5), 0.1, 0.5), (0.0, 0.5, 1.0)),
        RoomPart("crate", Box((-0.5, -0.5, 0.2), (0.2, 0.3, 0.2), 0.4), (0.5, 0.5, 0.5)),
    ),
)
ROOM = Kind(lambda folder: write_room(A_ROOM, folder / "room.json"), _change_room, _read_room)
"""The exact signed distance of a generated room."""


def blender(folder: Path) -> Any:
    """What `eugen-data check` reads of Blender's format."""
    return check_blender_directory(folder, ("train", "val", "test"), times=False)


def image_set(folder: Path) -> Any:
    """What it reads of nerfstudio's."""
    return check_image_directory(folder)


def sequence(folder: Path) -> Any:
    """What `eugen-isdf` reads of posed depth images."""
    unknown = (folder / "rgb").is_dir()  # TUM's layout does not state its camera
    options = SequenceOptions(intrinsics=LENS if unknown else None)
    return inspect_sequence(read_sequence(folder, options), options)
