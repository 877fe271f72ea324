"""How fast networks are evaluated, dense and EUGen, by every way of running them: the contenders and what they cost.

All take the same encoded inputs and turns in one process (`core/timing.py`). The best dense row is the fastest dense
network of full width, however it is run: nothing is gained against a slow way of running the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eugen_nerf.core import EUGenConfig, EUGenLinear, LayerGraph, NeRFShape, Replacement, build_variant, make_plan
from eugen_nerf.core.choices import PLAN_DTYPES, Backend, PlanDtype
from eugen_nerf.core.inference.packing import unsupported_reason
from eugen_nerf.core.layers.projections import seeded_generator

SLOW = ("compile", "float32")
SAMPLES = 2048
"""Inputs on which plans measure their deviation."""
Work = Callable[[], object]


@dataclass(frozen=True)
class Family:
    """A published architecture and the networks that are compared at it."""

    name: str
    shape: NeRFShape
    layers: tuple[str, ...]
    """Layers that EUGen replaces."""
    features: tuple[int, ...] = (128, 64)
    published: tuple[str, int] | None = None
    """Layers that the paper replaces and its number of features, with the norm."""
    gradient: bool = False
    """Whether a query is the first output with its gradient in the inputs."""


FAMILIES = (
    Family("NeRF 8x256", NeRFShape(), ("trunk_.*",), published=("trunk_[567]", 256)),
    Family(
        "Mip-NeRF 360 8x1024",
        NeRFShape(504, 27, 8, 1024, (5,), bottleneck_width=256, head_layers=1, head_width=128),
        ("trunk_.*",),
        features=(512, 256, 128, 64),
        published=("trunk_[567]", 1024),
    ),
    Family(
        "Zip-NeRF head",
        NeRFShape(50, 27, 1, 64, (), bottleneck_width=256, head_layers=2, head_width=256),
        ("head_.*",),
        published=("head_0", 64),
    ),
    Family(
        "iSDF 4x256, value and gradient",
        NeRFShape(255, 0, 4, 256, (2,), head_width=0, output="distance"),
        ("trunk_.*",),
        gradient=True,
    ),
)


@dataclass(frozen=True)
class Contender:
    """A network and a way of running it."""

    name: str
    dense: bool
    """Whether it is the dense network of full width."""
    dtype: torch.dtype
    network: LayerGraph
    work: Work
    """Evaluates all queries once."""
    chunk: int | None
    """Rows at a time; None where all go in one launch."""
    deviation: float | None
    """From float32, as the plan states it; None where there is no plan."""
    note: str | None = None
    """Why it is not run as its name says."""
    fused: bool = False
    """Whether values between layers stay in registers."""

    def flops(self, gradient: bool) -> int:
        """Floating-point operations of the matrix products of one query; a gradient takes those of a second pass."""
        return 2 * self.network.multiply_adds() * (2 if gradient else 1)

    def traffic(self, queries: int, gradient: bool) -> float:
        """Bytes that one query reads and writes, beyond registers: inputs, outputs, weights, values between layers.

        Weights are read once a chunk (once in 64 rows where fused, mostly from a cache).
        """
        graph, size = self.network.collapsed(), self.dtype.itemsize
        widths = [*self.network.input_widths, *(stage.num_features for stage, _ in graph.steps)]
        between = sum(sum(widths[v] for v in reads) + stage.num_features for stage, reads in graph.steps)
        outputs = sum(widths[v] if a.weight is None else a.weight.shape[0] for v, a in graph.outputs)
        ends = sum(self.network.input_widths) + outputs
        rows = 64 if self.fused else min(self.chunk or queries, queries)
        numbers = ends if self.fused else ends + between
        return (numbers + graph.count_numbers() / rows) * size * (2 if gradient else 1)


@dataclass
class Field:
    """The contenders of a family and the queries that they evaluate."""

    family: Family
    inputs: list[Tensor]
    """float32 `[queries, d_i]`."""
    contenders: list[Contender] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is left out, and why."""

    @property
    def queries(self) -> int:
        """Number of queries of one call."""
        return len(self.inputs[0])


def networks_of(family: Family, device: torch.device) -> dict[str, LayerGraph]:
    """Dense, EUGen with each number of features and as published, and baselines at the cost of the last number.

    Their weights are random.
    """
    torch.manual_seed(0)

    def build(variant: str, m: int, layers: tuple[str, ...] = family.layers, *, norm: bool = False) -> LayerGraph:
        replacement = Replacement(layers, (m,), EUGenConfig(norm=norm))
        return build_variant(family.shape, variant, replacement).to(device).eval()

    networks = {"dense": build("dense", 64)}
    networks |= {f"EUGen m={m}": build("eugen", m) for m in family.features}
    if family.published is not None:
        layers, m = family.published
        networks["EUGen as published"] = published = build("eugen", m, (layers,), norm=True)
        for layer in published.modules():
            if isinstance(layer, EUGenLinear):
                layer.draw_norm_column()  # training leaves none zero, and plans leave zeros out
    last = family.features[-1]
    return networks | {
        f"narrower, as m={last}": build("narrow", last),
        f"low rank, as m={last}": build("lowrank", last),
    }


def contenders_of(
    family: Family,
    inputs: list[Tensor],
    *,
    compiled: bool = True,
    chunk: int = 4096,
    left_out: Collection[tuple[str, str, str]] = (),
    every_way: bool = False,
) -> Field:
    """Every network of a family by every way that its kind is run here.

    Args:
        family: which.
        inputs: float32 `[queries, d_i]` on the device that is measured.
        compiled: whether torch.compile is tried, which takes a minute a network on a slow machine.
        chunk: rows at a time where no plan chooses.
        left_out: plans, as (network, backend, dtype), that are not made, which a note says.
        every_way: whether the narrower and low-rank baselines take part by all of them, and every network is compiled
            in float32 too; else by those that are worth the time on a CPU.
    """
    device, result = inputs[0].device, Field(family, inputs)
    ways: list[tuple[Backend, PlanDtype]] = [("eager", "float32"), ("eager", "bfloat16")]
    ways += [("compile", "float32"), ("compile", "bfloat16")] if compiled else []
    ways += [("triton", dtype) for dtype in PLAN_DTYPES] if device.type == "cuda" else []
    for name, network in networks_of(family, device).items():
        dense = name == "dense"
        baseline = not dense and not name.startswith("EUGen")
        result.contenders.append(_plain(name, network, inputs, chunk, family.gradient))
        if family.gradient:
            result.contenders.append(_plain(name, network, inputs, chunk, True, torch.bfloat16))
            continue
        for backend, dtype in ways:
            # compiling takes long: in float32 the dense network alone, and baselines run by the plan that is best
            slow = (baseline and (backend == "compile" or dtype != "bfloat16")) or (
                not dense and (backend, dtype) == SLOW
            )
            if slow and not every_way:
                continue
            if (name, backend, dtype) in left_out:
                result.notes.append(f"{name}, {backend} plan {dtype}: left out")
                continue
            reason = unsupported_reason(network.collapse(), network.input_widths) if backend == "triton" else None
            if reason is None:
                result.contenders.append(_planned(name, network, inputs, backend, dtype))
            elif (line := f"{name}, no fused kernel: {reason}") not in result.notes:
                result.notes.append(line)
    return result


def _plain(
    name: str, network: LayerGraph, inputs: list[Tensor], chunk: int, gradient: bool, dtype: torch.dtype = torch.float32
) -> Contender:
    """The collapsed network as it is, chunk by chunk."""
    graph = network.collapse().cast(dtype)
    rows = [x.to(dtype) for x in inputs]

    def values() -> None:
        with torch.no_grad():
            for parts in zip(*(x.split(chunk) for x in rows), strict=True):
                graph(*parts)

    def gradients() -> None:
        for part in rows[0].split(chunk):
            points = part.detach().requires_grad_()
            torch.autograd.grad(graph(points)[0].sum(), points)

    work = gradients if gradient else values
    kind = "eager" if dtype == torch.float32 else "eager bfloat16"
    return Contender(f"{name}, {kind}", name == "dense", dtype, network, work, chunk, None)


def _planned(name: str, network: LayerGraph, inputs: list[Tensor], backend: Backend, dtype: PlanDtype) -> Contender:
    plan = make_plan(network, [x[:SAMPLES] for x in inputs], backend=backend, dtype=dtype)
    return Contender(
        name=f"{name}, {backend} plan {dtype}",
        dense=name == "dense",
        dtype=getattr(torch, dtype, torch.float32),  # tf32 is a way of multiplying float32
        network=network,
        work=lambda: plan(*inputs),
        chunk=plan.chunk,
        deviation=plan.deviation,
        note=plan.fallback,
        fused=plan.backend == "triton",
    )


def encoded_inputs(widths: Sequence[int], queries: int, device: torch.device, *, seed: int = 0) -> list[Tensor]:
    """Numbers in [-1, 1], as encodings give them, float32 `[queries, d_i]`, the same on every device."""
    generator = seeded_generator(seed, "inputs")
    return [(torch.rand(queries, width, generator=generator) * 2 - 1).to(device) for width in widths]
