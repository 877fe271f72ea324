"""A whole image by every way of running its networks: seconds, ratios, and where they go."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from eugen_nerf.benchmarks.network_speed import Family
from eugen_nerf.core import InferencePlan
from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.core.timing import medians, speed_ratios, synchronise, time_interleaved
from eugen_nerf.evaluation.costs.inference_modes import PLAN_RAYS, describe_plan
from eugen_nerf.evaluation.costs.time_breakdown import ceiling, median_split, split_once
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.mipnerf360 import MipNeRF360ModelConfig
from eugen_nerf.methods.nerf import EugenNerfModelConfig
from eugen_nerf.methods.rendering.planning import plan_model, rows_at_once, unplan_model
from eugen_nerf.methods.rendering.shortcuts import Shortcuts

PLANS: tuple[tuple[str, str], ...] = (("eager", "float32"), ("eager", "bfloat16"))
"""Backends and dtypes of the plans that are compared; on CUDA the fused kernel joins them, and for the dense networks
the compiler."""


@dataclass(frozen=True)
class Way:
    """A model and a way of running its networks."""

    name: str
    dense: bool
    model: GraphModel
    plans: Mapping[str, InferencePlan] | None
    """None: as the method has it, auxiliary outputs among it."""

    def take(self) -> None:
        """Sets the model so."""
        unplan_model(self.model)
        self.model.shortcuts = Shortcuts(extras=self.plans is None)
        for name, plan in (self.plans or {}).items():
            field = self.model.graph_fields()[name]
            field.network.plan, field.inference_rows = plan, rows_at_once(plan)

    def render(self, camera: Cameras) -> Tensor:
        """`[H, W, 3]`, on the CPU."""
        self.take()
        return self.model.get_outputs_for_camera(camera)["rgb"].cpu()


def ways_of(
    models: Mapping[str, GraphModel], dense: Sequence[str], camera: Cameras, *, compiled: bool = True
) -> list[Way]:
    """Every model as it is and by plans, which are made from rays of the camera.

    Args:
        models: by name, in evaluation mode, on one device.
        dense: names of those that are dense networks of full width.
        camera: one, on that device.
        compiled: whether torch.compile joins them for the dense networks on CUDA, which takes a minute each.
    """
    ways = []
    for name, model in models.items():
        device = next(model.parameters()).device
        kinds = [*PLANS]
        if device.type == "cuda":
            kinds += [("compile", "bfloat16")] if compiled and name in dense else []
            kinds += [("triton", "bfloat16")]
        ways.append(Way(f"{name}, as it is", name in dense, model, None))
        for backend, dtype in kinds:
            rays = camera.generate_rays(camera_indices=0, keep_shape=True).flatten()
            chosen = torch.randperm(len(rays), generator=torch.Generator().manual_seed(0))[:PLAN_RAYS].to(device)
            bundle = rays[chosen] if model.collider is None else model.collider(rays[chosen])
            plans = plan_model(model, bundle, backend=backend, dtype=dtype)  # type: ignore[arg-type]
            unplan_model(model)
            ways.append(Way(f"{name}, {backend} plan {dtype}", name in dense, model, plans))
    return ways


def measure_images(ways: Sequence[Way], camera: Cameras, *, warmup: int = 1, repeats: int = 5) -> list[dict[str, Any]]:
    """One row a way, as plain data: seconds, ratio to the best dense way, the split, deviations.

    Args:
        ways: from `ways_of`.
        camera: the view, on the models' device.
        warmup: untimed rounds.
        repeats: timed rounds; half as many take the time apart.
    """
    device = next(ways[0].model.parameters()).device
    images = {way.name: way.render(camera) for way in ways}
    seconds = time_interleaved(
        {way.name: partial(_discard, way, camera) for way in ways}, warmup=warmup, repeats=repeats, device=device
    )
    middle = medians(seconds)
    best = min((way.name for way in ways if way.dense), key=lambda name: middle[name])
    ratios = speed_ratios(seconds, best)
    splits: dict[str, list[dict[str, float]]] = {way.name: [] for way in ways}
    for _ in range(max(1, repeats // 2)):
        for way in ways:
            splits[way.name].append(split_once(way.model, partial(_discard, way, camera), partial(synchronise, device)))
    transfer = _transfer_seconds(images[best].to(device))
    rows, plain = [], {way.model: way.name for way in ways if way.plans is None}
    for way in ways:
        ratio, split = asdict(ratios[way.name]), median_split(splits[way.name])
        reference = images[plain[way.model]]
        error = float((images[way.name] - reference).double().square().mean())
        rows.append(
            {
                "name": way.name,
                "best_dense": way.name == best,
                "seconds_per_image": middle[way.name],
                "ratio": ratio["median"],
                "ratio_quartiles": [ratio["lower_quartile"], ratio["upper_quartile"]],
                "split": {**split, "transfer": transfer},
                "ceiling": ceiling(split),
                "largest_change": float((images[way.name] - reference).abs().max()),
                "psnr_to_float32": -10 * torch.log10(torch.tensor(error)).item() if error else None,
                "plans": {key: describe_plan(plan) for key, plan in (way.plans or {}).items()} or None,
                "seconds": seconds[way.name],
            }
        )
        way.take()
    return rows


def random_models(family: Family, device: torch.device, *, samples: tuple[int, int]) -> dict[str, GraphModel]:
    """Methods at a family's published sizes with random weights: dense, and EUGen of each of its numbers of features.

    Mip-NeRF 360's proposals are dense in all of them, as the method has them.

    Args:
        family: NeRF or Mip-NeRF 360, of `core.speed.FAMILIES`.
        device: where.
        samples: a NeRF's coarse ones, and those added for the fine field; Mip-NeRF 360 takes its own.
    """
    box = SceneBox(torch.tensor([[-1.5] * 3, [1.5] * 3]))
    models: dict[str, GraphModel] = {}
    for name, m in [("dense", 64), *((f"EUGen m={m}", m) for m in family.features)]:
        torch.manual_seed(0)
        variant: Variant = "dense" if name == "dense" else "eugen"
        config: EugenNerfModelConfig | MipNeRF360ModelConfig
        if family.name.startswith("Mip"):
            config = MipNeRF360ModelConfig(variant=variant)
        else:
            config = EugenNerfModelConfig(
                variant=variant, num_coarse_samples=samples[0], num_importance_samples=samples[1]
            )
        config.network.num_features = (m,)
        model = config.setup(scene_box=box, num_train_data=1, metadata={})
        models[name] = model.to(device).eval()
    return models


def one_camera(side: int, device: torch.device) -> Cameras:
    """A camera 4 units from the origin that looks at it, `side` pixels a side."""
    pose = torch.eye(4)[None, :3].clone()
    pose[0, 2, 3] = 4.0
    focal = 1.4 * side
    return Cameras(pose, focal, focal, side / 2, side / 2, side, side).to(device)


def image_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows as lines of text."""
    parts = list(rows[0]["split"])
    lines = [f"{'image':36}{'s/image':>9}{'ratio':>8}{'quartiles':>13}" + "".join(f"{p[:9]:>10}" for p in parts)]
    for row in rows:
        low, high = row["ratio_quartiles"]
        name = row["name"] + (" *" if row["best_dense"] else "")
        text = f"{name:36}{row['seconds_per_image']:9.3f}{row['ratio']:7.2f}x{f'{low:.2f}-{high:.2f}':>13}"
        lines.append(text + "".join(f"{row['split'][p]:10.3f}" for p in parts))
    return lines


def _discard(way: Way, camera: Cameras) -> None:
    way.render(camera)


def _transfer_seconds(image: Tensor) -> float:
    """Median time of copying an image from a CUDA device; nothing elsewhere."""
    if image.device.type != "cuda":
        return 0.0

    def copy() -> None:
        image.cpu()

    return statistics.median(time_interleaved({"copy": copy}, warmup=2, repeats=9, device="cuda")["copy"])
