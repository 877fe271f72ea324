"""One image of a NeRF by networks alone, in plain PyTorch, taken apart: what a faster network is worth in it.

Coarse samples, the coarse density alone, samples from its weights, the fine network on both, compositing on white
(Sec. 4 and 5.2 of arXiv 2003.08934). The same steps serve every network; only the networks differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eugen_nerf.benchmarks.network_speed import FAMILIES, Family, encoded_inputs, networks_of
from eugen_nerf.core import FrequencyEncoding, LayerGraph, make_plan
from eugen_nerf.core.inference.fused import kernel_unavailable_reason
from eugen_nerf.core.timing import medians, speed_ratios, synchronise, time_interleaved

COARSE, FINE = 64, 128
NEAR, FAR = 2.0, 6.0
PARTS = ("sampling", "encoding", "MLP", "compositing", "transfer")
POSITIONS, VIEWS = FrequencyEncoding(3, 10, 0.0, 8.0), FrequencyEncoding(3, 4, 0.0, 4.0)
RAYS = {"cpu": 256, "cuda": 1 << 13}
"""Rays at a time."""


@dataclass
class Clock:
    """Seconds by part of a render; it waits for the device only where it is on."""

    device: torch.device
    on: bool = False
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _since: float = 0.0

    def start(self) -> None:
        """A part begins."""
        if self.on:
            synchronise(self.device)
            self._since = time.perf_counter()

    def end(self, part: str) -> None:
        """A part is done, and the next one begins."""
        if self.on:
            synchronise(self.device)
            now = time.perf_counter()
            self.seconds[part] += now - self._since
            self._since = now


class TimedRender:
    """A view of side x side pixels from 4 units away, rendered by a coarse and a fine network.

    Args:
        coarse: evaluated for its density alone.
        fine: evaluated for density and colour.
        side: pixels along each side.
        device: where.
        rows: samples that are encoded at a time.
        encode: whether networks are given encoded points, and not points that their plans encode.
    """

    def __init__(
        self, coarse: LayerGraph, fine: LayerGraph, side: int, device: torch.device, rows: int, *, encode: bool = True
    ) -> None:
        self.coarse, self.fine, self.device, self.rows, self.encode = coarse, fine, device, rows, encode
        grid = (torch.arange(side, device=device) + 0.5) / side - 0.5
        y, x = torch.meshgrid(-grid, grid, indexing="ij")
        self.directions = F.normalize(torch.stack([x, y, -1.4 * torch.ones_like(x)], dim=-1).reshape(-1, 3), dim=-1)
        self.origin = torch.tensor([0.0, 0.0, 4.0], device=device)

    @torch.no_grad()
    def render(self, clock: Clock | None = None) -> Tensor:
        """Colours `[side * side, 3]` on the CPU."""
        clock = clock or Clock(self.device)
        count = RAYS.get(self.device.type, RAYS["cpu"])
        clock.start()
        image = torch.cat([self._rays(part, clock) for part in self.directions.split(count)])
        clock.start()
        image = image.cpu()
        clock.end("transfer")
        return image

    def _rays(self, directions: Tensor, clock: Clock) -> Tensor:
        edges = torch.linspace(NEAR, FAR, COARSE + 1, device=self.device).expand(len(directions), -1)
        clock.end("sampling")
        density = self._evaluate(self.coarse, directions, edges, clock, (0,))[0]
        weights = rendering_weights(density, edges)
        clock.end("compositing")
        edges = finer_edges(edges, weights, FINE)
        clock.end("sampling")
        density, colour = self._evaluate(self.fine, directions, edges, clock, None)
        weights = rendering_weights(density, edges)[..., None]
        shown = (weights * torch.sigmoid(colour)).sum(dim=1) + 1 - weights.sum(dim=1)
        clock.end("compositing")
        return shown

    def _evaluate(
        self, network: LayerGraph, directions: Tensor, edges: Tensor, clock: Clock, outputs: tuple[int, ...] | None
    ) -> list[Tensor]:
        middles = (edges[:, 1:] + edges[:, :-1]) / 2
        points = (self.origin + directions[:, None] * middles[..., None]).reshape(-1, 3)
        views = VIEWS(directions, directions) if self.encode and outputs is None else directions
        ray = torch.arange(len(directions), device=self.device).repeat_interleave(middles.shape[1])
        outputs_by_part = []
        for start in range(0, len(points), self.rows):
            part = points[start : start + self.rows]
            inputs = [POSITIONS(part, part) if self.encode else part]
            if outputs is None:
                inputs.append(views[ray[start : start + self.rows]])
            clock.end("encoding")
            outputs_by_part.append(network(*inputs, outputs=outputs) if outputs else network(*inputs))
            clock.end("MLP")
        joined = [torch.cat(parts) for parts in zip(*outputs_by_part, strict=True)]
        return [v.view(*middles.shape, -1) for v in joined]


def rendering_weights(raw: Tensor, edges: Tensor) -> Tensor:
    """Weights `[rays, samples]` from raw densities `[rays, samples, 1]` and edges `[rays, samples + 1]` (Eq. 3)."""
    optical = F.softplus(raw[..., 0]) * (edges[:, 1:] - edges[:, :-1])
    before = F.pad(optical.cumsum(dim=1)[:, :-1], (1, 0))
    return (1 - torch.exp(-optical)) * torch.exp(-before)


def finer_edges(edges: Tensor, weights: Tensor, count: int) -> Tensor:
    """Edges `[rays, samples + 1 + count]`: those given, and `count` evenly spaced quantiles of the weights."""
    weights = weights + 1e-5
    cdf = F.pad((weights / weights.sum(dim=1, keepdim=True)).cumsum(dim=1), (1, 0)).contiguous()
    u = ((torch.arange(count, device=edges.device) + 0.5) / count).expand(len(edges), -1).contiguous()
    above = torch.searchsorted(cdf, u, right=True).clamp(1, edges.shape[1] - 1)
    low, high = cdf.gather(1, above - 1), cdf.gather(1, above)
    share = ((u - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    start, end = edges.gather(1, above - 1), edges.gather(1, above)
    return torch.cat([edges, start + share * (end - start)], dim=1).sort(dim=1).values


def measure_renders(
    device: torch.device, side: int, *, repeats: int, compiled: Sequence[str] = (), family: Family = FAMILIES[0]
) -> list[dict[str, Any]]:
    """One row for each network and way of running it: seconds, ratio to the best dense one, the parts' seconds.

    Args:
        device: where.
        side: pixels along each side.
        repeats: timed rounds.
        compiled: networks that are run by torch.compile too.
        family: networks on a NeRF's encoded positions and directions.
    """
    renders = {}
    fused = kernel_unavailable_reason(device) is None and device.type == "cuda"
    for name in ("dense", *(f"EUGen m={m}" for m in family.features)):
        ways = [("eager", "float32"), ("eager", "bfloat16")]
        ways += [("compile", "bfloat16")] if name in compiled else []
        ways += [("triton", "bfloat16")] if fused else []
        for backend, dtype in ways:
            networks = [networks_of(family, device)[name] for _ in range(2)]
            rows, encode = 1 << 20, backend != "triton"  # the kernel encodes
            for network in networks:
                samples = encoded_inputs(network.input_widths if encode else (3, 3), 1024, device)
                encodings = None if encode else (POSITIONS, VIEWS)
                plan = make_plan(network, samples, backend=backend, dtype=dtype, encodings=encodings)  # type: ignore[arg-type]
                network.plan, rows = plan, plan.chunk or rows
            render = TimedRender(networks[0], networks[1], side, device, rows, encode=encode)
            renders[f"{name}, {backend} plan {dtype}"] = render
    work: Mapping[str, Callable[[], None]] = {n: lambda r=r: _discard(r) for n, r in renders.items()}  # type: ignore[misc]
    seconds = time_interleaved(work, warmup=1, repeats=repeats, device=device)
    middle = medians(seconds)
    best = min((n for n in renders if n.startswith("dense")), key=lambda n: middle[n])
    ratios, rows_measured = speed_ratios(seconds, best), []
    for name, render in renders.items():
        clock = Clock(device, on=True)
        render.render(clock)
        row: dict[str, Any] = {
            "family": family.name,
            "name": name,
            "best_dense": name == best,
            "side": side,
            "seconds_per_image": middle[name],
        }
        ratio = asdict(ratios[name])
        quartiles = [ratio["lower_quartile"], ratio["upper_quartile"]]
        row |= {"ratio": ratio["median"], "ratio_quartiles": quartiles, "split": clock.seconds}
        rows_measured.append({**row, "seconds": seconds[name]})
    return rows_measured


def _discard(render: TimedRender) -> None:
    render.render()
