"""Graphs of random layers and wiring."""

import random

import torch
from oracles import draw, randomise

from eugen_nerf.core import DenseLinear, EUGenConfig, EUGenLinear, FeatureLayer, LayerGraph, LowRankLinear
from eugen_nerf.core.layers.products import PRODUCTS

Wiring = dict[str, list[int | str]]


def random_graph(seed: int, *, norm: bool | None = None) -> tuple[LayerGraph, Wiring, list[torch.Tensor]]:
    """Layers of every kind with skips, late inputs and several heads; widths on both sides of what pays to merge."""
    rng, joining = random.Random(seed), random.Random(1000 + seed)
    widths = [rng.randint(2, 4) for _ in range(rng.randint(1, 3))]
    sizes: dict[int | str, int] = dict(enumerate(widths))
    layers: dict[str, FeatureLayer] = {}
    wiring: Wiring = {}
    for i in range(rng.randint(3, 5)):
        name = f"layer_{i}"
        reads = rng.sample(list(sizes), rng.randint(1, min(3, len(sizes))))
        if i and f"layer_{i - 1}" not in reads:
            reads.append(f"layer_{i - 1}")
        width, out = sum(sizes[v] for v in reads), rng.choice([3, 5, 9])
        kind = rng.choice(["eugen", "eugen", "eugen", "dense", "lowrank"])
        if kind == "eugen":
            degree = rng.choice([1, 2])
            config = EUGenConfig(
                rng.choice([1, 2, 4]),
                degree,
                rng.choice(["relu", "tanh", "softplus"]),
                weights=rng.choice(["free", "tied", "separate"]),
                shared=rng.random() < 0.5,
                norm=rng.random() < 0.5 if norm is None else norm,
                bias=rng.random() < 0.7,
                product=joining.choice(PRODUCTS) if degree == 2 else "plain",
            )
            layers[name] = EUGenLinear(width, out, config)
        elif kind == "dense":
            layers[name] = DenseLinear(width, out, rng.choice(["relu", "identity"]))
        else:
            layers[name] = LowRankLinear(width, out, min(2, width, out), "tanh")
        wiring[name], sizes[name] = reads, out
    outputs = [f"layer_{len(layers) - 1}", *rng.sample(list(layers), rng.randint(0, 2))]
    graph = LayerGraph(layers, wiring, widths, list(dict.fromkeys(outputs)))
    randomise(graph, seed, spread=0.6)
    return graph, wiring, [draw(5, w, seed=100 * seed + i) for i, w in enumerate(widths)]
