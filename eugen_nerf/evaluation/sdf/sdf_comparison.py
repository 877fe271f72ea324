"""Comparing signed distance runs of one sequence: errors, meshes, times taken in turns in one process."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from rich.console import Console

from eugen_nerf.core.errors import ConfigError, DataError, RunError
from eugen_nerf.data.rgbd.depth_views import depth_views, stream_views
from eugen_nerf.data.rgbd_parser import sequences_read_once
from eugen_nerf.data.synthetic.room import ROOM_NAME, read_room
from eugen_nerf.evaluation.costs.resources import count_parameters, environment, fit_seconds, inference_parameters
from eugen_nerf.evaluation.costs.training_cost import KEYS as TRAINING_KEYS
from eugen_nerf.evaluation.costs.training_cost import draw_batches, seeded, training_costs
from eugen_nerf.evaluation.sdf.sdf_metrics import Truth, chamfer, measured_truth, room_truth, sdf_metrics
from eugen_nerf.evaluation.sdf.sdf_protocol import SdfProtocol
from eugen_nerf.evaluation.sdf.tsdf_baseline import fuse
from eugen_nerf.evaluation.stage_lines import counted, followed, shares
from eugen_nerf.fields.query_timing import medians, speed_ratios, time_interleaved
from eugen_nerf.methods.runs.loading import Run, load_run, usable_device
from eugen_nerf.methods.runs.run_paths import check_names, run_names
from eugen_nerf.surfaces.distance_field import SignedDistance
from eugen_nerf.surfaces.mesh import extract_mesh
from eugen_nerf.surfaces.slices import Slice, sample_slice
from eugen_nerf.surfaces.volume import Progress, make_grid

OBSERVED_WIDTH = 160
"""Depth images are thinned to about this many columns where they only say what was observed."""
FUSION_VOXEL, FUSION_WIDTH = 0.02, 640
"""Cell of the fused volume in metres, and to about how many columns the depth images are thinned for it."""


@dataclass
class SdfComparison:
    """The result of `evaluate_sdf`.

    Attributes:
        rows: one dictionary a run; `sdf_metrics` and `chamfer` explain the scores.
        protocol: the settings, and what the reference is.
        environment: what the numbers were taken on.
        notes: what a reader has to know.
        slices: slices through the runs (and the room, where known) by name, halfway between floor and camera.
        published: results to show beside them, see `evaluation/statistics/published.py`.
    """

    rows: list[dict[str, Any]]
    protocol: dict[str, Any]
    environment: dict[str, Any]
    notes: list[str]
    slices: dict[str, Slice] = field(repr=False)
    published: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class SplitOutputs:
    """What the data parser of a run says of both splits, and the directory that it reads."""

    train: DataparserOutputs
    held_out: DataparserOutputs
    directory: Path


def split_outputs(run: Run) -> SplitOutputs:
    """The sequence of a run; raises `DataError` where it has no depth."""
    manager = run.config.pipeline.datamanager
    config = copy.deepcopy(getattr(manager, "dataparser", None))
    if config is None:
        raise DataError(f"{run.path}: {type(manager).__name__} names no data parser: only RGB-D runs can be compared")
    config.data = manager.data or config.data
    parser = config.setup()
    outputs = SplitOutputs(
        parser.get_dataparser_outputs("train"), parser.get_dataparser_outputs("test"), Path(config.data)
    )
    if "depth_filenames" not in outputs.train.metadata:
        raise DataError(f"{run.path}: its data have no depth images: only runs on eugen-rgbd data can be compared")
    return outputs


def evaluate_sdf(
    config_paths: Sequence[Path],
    *,
    names: Sequence[str] = (),
    baseline: str | None = None,
    protocol: SdfProtocol | None = None,
    device: str | None = None,
    data: Path | None = None,
    trust_config: bool = False,
    console: Console | None = None,
) -> SdfComparison:
    """Load runs of one sequence, measure their signed distances, time them.

    Where a `room.json` lies in the sequence's directory, it is the truth; elsewhere held-out depth images are, and a
    mesh fused from all depth images by open3d.

    Args:
        config_paths: the `config.yml` of each run.
        names: what to call them; by default the shortest distinct parts of their paths, see `run_names`.
        baseline: the name that speeds are compared with; the first run by default.
        protocol: what is measured.
        device: where all runs are loaded; None takes CUDA where there is a GPU, else the CPU.
        data: read the sequence from here instead of where the configs say.
        trust_config: as in `read_config`.
        console: where progress goes; standard error by default.

    Raises:
        RunError: a run cannot be loaded, or has no signed distance.
        DataError: the runs' sequences differ, or have no depth.
        ConfigError: names or baseline do not fit.
    """
    protocol = protocol or SdfProtocol()
    if not config_paths:
        raise ConfigError("nothing to compare: give the config.yml of at least one run")
    check_names(names, len(config_paths))
    names = run_names(config_paths, names)
    baseline = baseline or names[0]
    if baseline not in names:
        raise ConfigError(f"no run is called {baseline!r}: --baseline takes one of {', '.join(names)}")
    runs, where = [], usable_device(device)
    with sequences_read_once():
        for path in config_paths:
            with seeded(protocol.seed, where):
                runs.append(load_run(path, device=where, test_mode="test", data=data, trust_config=trust_config))
        named = dict(zip(names, runs, strict=True))
        sdfs = {name: SignedDistance.of_model(run.model) for name, run in named.items()}
        outputs = _shared_outputs(named)
    make_grid(outputs.train.scene_box.aabb.numpy(), protocol.voxel)  # refuses a cell before minutes of work
    training = protocol.train_iterations
    batches = {name: draw_batches(run, training, seed=protocol.seed) for name, run in named.items()} if training else {}
    with shares(console) as bar:
        truth, reference = _truth(outputs, protocol, bar)
        box = outputs.train.scene_box.aabb.numpy()
        reach = float(np.linalg.norm(box[1] - box[0]))
        rows = []
        for name, run in named.items():
            bar(f"scoring {name}")
            scores = sdf_metrics(sdfs[name], truth, protocol.bands, reach)
            mesh = extract_mesh(sdfs[name].distance, box, protocol.voxel, bar(f"meshing {name}"))
            rng = np.random.default_rng(protocol.seed)
            scores.update(chamfer(mesh, truth, rng, protocol.chamfer_points))
            rows.append({"variant": name, **scores, **_costs(run)})
    _add_times(rows, sdfs, truth, protocol, baseline, console)
    slices = _slices(sdfs, truth, box, protocol)
    costs = training_costs(named, batches, baseline, console) if batches else {}  # last: it changes the weights
    for row in rows:
        row.update(costs.get(row["variant"], dict.fromkeys(TRAINING_KEYS)))
    notes = []
    if len({row["step"] for row in rows}) > 1:
        notes.append("the runs were trained for different numbers of steps")
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for run in runs for value in run.model.parameters()})
    settings = {
        **asdict(protocol),
        "reference": reference,
        "baseline": baseline,
        "sequence": str(outputs.directory),
        "training_views": len(outputs.train.image_filenames),
        "held_out_views": len(outputs.held_out.image_filenames),
    }
    return SdfComparison(rows, settings, environment(runs[0].pipeline.device, dtypes), notes, slices)


def _shared_outputs(runs: Mapping[str, Run]) -> SplitOutputs:
    """The sequence of the first run, after checking that all others have the same held-out views."""
    first: SplitOutputs | None = None
    for name, run in runs.items():
        outputs = split_outputs(run)
        first = first or outputs
        mine, other = outputs.held_out, first.held_out
        same = [p.name for p in mine.image_filenames] == [p.name for p in other.image_filenames]
        if not same or not torch.equal(mine.cameras.camera_to_worlds, other.cameras.camera_to_worlds):
            raise DataError(
                f"{name} and {next(iter(runs))} have different held-out views: only runs on one sequence with one "
                "eval_interval can be compared; point all of them to it with --data"
            )
    assert first is not None
    return first


def _truth(outputs: SplitOutputs, protocol: SdfProtocol, bar: Callable[[str], Progress]) -> tuple[Truth, str]:
    """The reference, and a sentence about it."""
    width = int(outputs.train.cameras.width.flatten()[0])
    coarse, fine = max(1, width // OBSERVED_WIDTH), max(1, width // FUSION_WIDTH)
    train, held_out = depth_views(outputs.train, stride=coarse), depth_views(outputs.held_out, stride=fine)
    name = outputs.directory / ROOM_NAME
    if name.is_file():
        return room_truth(read_room(name), train, held_out, protocol), f"exact signed distance of {name}"
    apart = set(outputs.held_out.image_filenames) - set(outputs.train.image_filenames)
    count = len(outputs.train.image_filenames) + (len(held_out) if apart else 0)
    every = chain(stream_views(outputs.train, stride=fine), [held_out] if apart else [])
    fused = fuse(every, voxel=FUSION_VOXEL, count=count, progress=bar("fusing depth"))
    text = f"mesh fused from {count} depth images by open3d, {100 * FUSION_VOXEL:g} cm cells; held-out depth images"
    return measured_truth(fused, train, held_out, protocol), text


def _costs(run: Run) -> dict[str, Any]:
    """Sizes and operations of a run."""
    network: Any = run.model.field
    macs = getattr(network, "macs_per_query", None)
    return {
        "parameters": count_parameters(network),
        "inference_parameters": inference_parameters(network),
        "macs_per_query": int(macs()) if callable(macs) else None,
        "checkpoint_bytes": run.checkpoint.stat().st_size,
        "fit_seconds": fit_seconds(run.path),
        "seed": run.config.machine.seed,
        "step": run.step,
        "method": run.config.method_name,
        "checkpoint": str(run.checkpoint),
        "config": str(run.path),
    }


def _add_times(
    rows: list[dict[str, Any]],
    sdfs: Mapping[str, SignedDistance],
    truth: Truth,
    protocol: SdfProtocol,
    baseline: str,
    console: Console | None,
) -> None:
    """Time one forward pass on random held-out rays, with and without the gradient, and write both into the rows."""
    rng = np.random.default_rng(protocol.seed)
    chosen = rng.integers(len(truth.rays.depth), size=protocol.timed_rays)
    share = np.sort(rng.uniform(size=(protocol.timed_rays, protocol.timed_samples, 1)), axis=1)
    reach = (truth.rays.depth[chosen, None, None] + 0.1) * truth.rays.directions[chosen, None]
    points = (truth.rays.origins[chosen, None] + share * reach).reshape(-1, 3).astype(np.float32)
    device = next(iter(sdfs.values())).device
    queries = torch.from_numpy(points).to(device)

    def value(sdf: SignedDistance) -> Callable[[], None]:
        def evaluate() -> None:
            with torch.no_grad():
                sdf.field.distance(queries)

        return evaluate

    def both(sdf: SignedDistance) -> Callable[[], None]:
        def evaluate() -> None:
            sdf.field.distance_and_gradient(queries)

        return evaluate

    for key, make in (("value", value), ("gradient", both)):
        calls = {name: make(sdf) for name, sdf in sdfs.items()}
        rounds = protocol.warmup + protocol.repeats
        with counted(f"timing {key}s", rounds * len(calls), console, timed=True) as done:
            calls = {name: followed(call, done) for name, call in calls.items()}
            seconds = time_interleaved(calls, warmup=protocol.warmup, repeats=protocol.repeats, device=device)
        ratios, middle = speed_ratios(seconds, baseline), medians(seconds)
        for row in rows:
            ratio = ratios[row["variant"]]
            row[f"{key}_ms"] = 1e3 * middle[row["variant"]]
            row[f"{key}_speed_ratio"] = ratio.median
            row[f"{key}_speed_ratio_quartiles"] = [ratio.lower_quartile, ratio.upper_quartile]
            row[f"{key}_seconds"] = seconds[row["variant"]]


def _slices(
    sdfs: Mapping[str, SignedDistance], truth: Truth, box: np.ndarray[Any, Any], protocol: SdfProtocol
) -> dict[str, Slice]:
    """Level slices through the room and the runs, halfway between the cameras and the box's bottom.

    Up is the axis that is nearest to the cameras' mean upward direction.
    """
    up = truth.views.poses[:, :, 1].mean(axis=0)
    axis = int(np.abs(up).argmax())
    camera, bottom = float(truth.views.poses[:, axis, 3].mean()), float(box[0 if up[axis] > 0.0 else 1, axis])
    at = float(np.clip(round(0.5 * (camera + bottom), 2), box[0, axis], box[1, axis]))
    slices = {}
    if truth.room is not None:
        room = truth.room
        slices["exact"] = sample_slice(
            lambda points: room.distance(points.astype(np.float64)).astype(np.float32),
            box,
            axis,
            at,
            protocol.slice_voxel,
        )
    for name, sdf in sdfs.items():
        slices[name] = sample_slice(sdf.distance, box, axis, at, protocol.slice_voxel)
    return slices


def to_json(comparison: SdfComparison) -> str:
    """The content of `report.json`: `rows`, `protocol`, `environment`, `notes`, `published`."""
    content = {key: getattr(comparison, key) for key in ("rows", "protocol", "environment", "notes", "published")}
    try:
        return json.dumps(content, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise RunError("a score is not finite: a run has diverged; train it again, or leave it out") from error
