"""What a training step of networks takes, forward and backward, dense and EUGen in turns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.benchmarks.network_speed import Family, encoded_inputs, networks_of
from eugen_nerf.core.timing import medians, speed_ratios, time_interleaved

WORK = {"cpu": 2e10, "cuda": 2e11}
"""Multiply-adds of the dense network's forward pass in one timed step: so many that what is formed once a step, the
products of a collapsed network's matrices, weighs no more than it does in training."""


def measure_training(
    family: Family, device: torch.device, *, scale: float = 1.0, repeats: int = 7, compiled: Collection[str] = ()
) -> list[dict[str, Any]]:
    """One row a network, as plain data: milliseconds a step in float32, ratio to the dense network run the same way.

    A signed distance is fitted with its gradient, which is differentiated once more (double backward).

    Args:
        family: which networks.
        device: where.
        scale: of the number of queries.
        repeats: timed rounds.
        compiled: networks whose steps are compiled too, in one piece; of families without a gradient alone.
    """
    steps, queries = training_steps(family, device, scale=scale, compiled=compiled)
    seconds = time_interleaved(steps, warmup=2, repeats=repeats, device=device)
    middle, rows = medians(seconds), []
    for name in steps:
        baseline = "dense, compiled" if name.endswith("compiled") else "dense"
        ratio = asdict(speed_ratios(seconds, baseline)[name])
        rows.append(
            {
                "family": family.name,
                "name": name,
                "queries": queries,
                "milliseconds": 1e3 * middle[name],
                "ratio": ratio["median"],
                "ratio_quartiles": [ratio["lower_quartile"], ratio["upper_quartile"]],
                "seconds": seconds[name],
            }
        )
    return rows


def training_steps(
    family: Family, device: torch.device, *, scale: float = 1.0, compiled: Collection[str] = ()
) -> tuple[dict[str, Callable[[], None]], int]:
    """What `measure_training` times, by name, and the queries of a step."""
    networks = networks_of(family, device)
    work = WORK.get(device.type, WORK["cpu"]) * min(1.0, scale)
    queries = 1 << max(5, int(work / networks["dense"].multiply_adds()).bit_length() - 1)
    inputs = encoded_inputs(networks["dense"].input_widths, queries, device)
    steps: dict[str, Callable[[], None]] = {}
    for name, network in networks.items():
        steps[name] = _step(network, network, inputs, family.gradient)
        if name in compiled and not family.gradient:
            steps[f"{name}, compiled"] = _step(network, torch.compile(network, fullgraph=True), inputs, False)
    return steps, queries


def training_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows of one family as lines of text."""
    lines = [f"training steps of {rows[0]['queries']:,} queries in float32, {rows[0]['family']}; ratio to dense"]
    for row in rows:
        low, high = row["ratio_quartiles"]
        lines.append(f"{row['name']:36}{row['milliseconds']:9.2f} ms{row['ratio']:8.2f}x{f'{low:.2f}-{high:.2f}':>13}")
    return lines


def _step(
    network: nn.Module, called: Callable[..., Any], inputs: Sequence[Tensor], gradient: bool
) -> Callable[[], None]:
    def values() -> None:
        network.zero_grad()
        torch.stack([y.square().mean() for y in called(*inputs)]).sum().backward()

    def gradients() -> None:
        network.zero_grad()
        points = inputs[0].detach().requires_grad_()
        distance = called(points)[0]
        (slope,) = torch.autograd.grad(distance.sum(), points, create_graph=True)
        (distance.square().mean() + (slope.norm(dim=-1) - 1).square().mean()).backward()

    return gradients if gradient else values
