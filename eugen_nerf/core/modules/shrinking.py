"""One hidden layer of any model after another made narrower: fitted as an EUGen layer, collapsed with its consumers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenLinear
from eugen_nerf.core.fitting.convert_graph import LayerReport
from eugen_nerf.core.fitting.layer_batches import HOLD_OUT_EVERY, LayerBatch, Replay
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig
from eugen_nerf.core.fitting.recipes.registry import recipe_named
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.modules.discovery import HiddenLayer, record_calls
from eugen_nerf.core.modules.linears import Linears, linear_like
from eugen_nerf.core.spec import count_parameters


class Weighted(NamedTuple):
    """A batch whose samples have weights.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import Weighted, convert_
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
        >>> batches = [Weighted(torch.rand(64, 4), weights=torch.rand(64)) for _ in range(5)]
        >>> convert_(model, batches, num_features=8).layers[0].num_features
        8
    """

    batch: Any
    weights: Tensor
    """At least 0, one for each row that the layers get."""


class Narrowing:
    """Layers made narrower one after another, kept apart from the model until all are done.

    Args:
        linears: of the model.
        source: batches, each time anew.
        call: runs the model on a batch.
        call_counts: on how many batches each layer is called. Of 5 or more, every fifth of them is held out for it; of
            fewer, the last fifth of the rows of each.
        config: the recipe.
    """

    def __init__(
        self,
        linears: Linears,
        source: Callable[[], Iterable[Any]],
        call: Callable[[nn.Module, Any], Any],
        call_counts: Mapping[str, int],
        config: ConversionConfig,
    ) -> None:
        self.linears, self.source, self.call, self.call_counts, self.config = linears, source, call, call_counts, config
        self.recipe = recipe_named(config.recipe)
        self.new: dict[str, nn.Linear] = {}
        self.blocks: dict[str, list[tuple[int, int]]] = {}  # of each changed consumer: where it lost how many columns

    def convert(self, layer: HiddenLayer, count: int, seed: int, metric: Tensor | None = None) -> LayerReport:
        """Fits one layer and multiplies its A into its consumers.

        Args:
            layer: comes after those converted so far.
            count: m.
            seed: of a random G.
            metric: `[t, l]`, by which neurons are chosen; where None, or 0 throughout, what the consumers make
                of an error.

        Raises:
            ConfigError: more features than rows, too few samples, or weights that do not fit the rows.
        """
        start = time.perf_counter()
        teacher = self.linears.dense[layer.name]
        old = self.new.get(layer.name, teacher)
        involved = (layer.name, *layer.consumers)
        before = self._count(involved)
        function = layer.function
        exact = torch.float64 if teacher.weight.dtype == torch.float64 else torch.float32
        with torch.random.fork_rng(devices=[]):  # its random start is not wanted
            dense = DenseLinear(old.in_features, old.out_features, function.name).to(teacher.weight.device, exact)
        dense.weight.copy_(old.weight.to(exact) * function.scale_in)
        dense.bias.zero_() if old.bias is None else dense.bias.copy_(old.bias.to(exact) * function.scale_in)
        eugen = replace(self.config.eugen, phi=function.name)
        fitted = self.recipe.new_layer(dense, count, eugen, seed=seed)
        assert isinstance(fitted, EUGenLinear)
        width = teacher.out_features
        if metric is None or not bool(metric.any()):
            teachers = {name: self.linears.dense[name].weight for name in layer.consumers}
            metric = torch.cat([teachers[n][:, s : s + width] for n, starts in layer.consumers.items() for s in starts])
        replay = Replay(lambda: self._pairs(layer, exact))
        error, ridge = self.recipe.fit(fitted, dense, replay, metric.double(), self.config)
        assert fitted.projection_bias is not None
        assert fitted.bias is not None
        self.new[layer.name] = linear_like(
            teacher, fitted.projection / function.scale_in, fitted.projection_bias / function.scale_in
        )
        for name, starts in layer.consumers.items():
            self._read_fewer(name, starts, fitted.weight.double(), fitted.bias.double() * function.scale_out)
        after = self._count(involved)
        return LayerReport(
            layer.name, count, error, ridge, (before[0], after[0]), (before[1], after[1]), time.perf_counter() - start
        )

    def _read_fewer(self, name: str, starts: Sequence[int], output: Tensor, shift: Tensor) -> None:
        """Multiplies A `[l, m]` and its bias `[l]` into a consumer's blocks of columns, which become m wide each."""
        consumer = self.new.get(name, self.linears.dense[name])
        weight = consumer.weight.double()
        bias = weight.new_zeros(len(weight)) if consumer.bias is None else consumer.bias.double()
        width, count = output.shape
        lost = self.blocks.setdefault(name, [])
        for start in sorted(starts, reverse=True):
            now = start - sum(n for at, n in lost if at < start)
            block = weight[:, now : now + width]
            bias = bias + block @ shift
            weight = torch.cat([weight[:, :now], block @ output, weight[:, now + width :]], dim=1)
            lost.append((start, width - count))
        self.new[name] = linear_like(self.linears.dense[name], weight, bias)

    def _pairs(self, layer: HiddenLayer, exact: torch.dtype) -> Iterator[LayerBatch]:
        """The layer's inputs in the converted model, and the outputs of its normalised function in the teacher."""
        name, function = layer.name, layer.function
        watched = {name: self.linears.modules[name]}
        index = 0  # of the batches that it is called on
        for item in self.source():
            batch, weights = (item.batch, item.weights) if isinstance(item, Weighted) else (item, None)
            run = partial(self.call, self.linears.model, batch)
            recorded = record_calls(watched, run)
            if not recorded:
                continue
            u = torch.cat([call.u for call in recorded]).to(exact)
            if self.new:
                with self.linears.replaced(self.new):
                    recorded = record_calls(watched, run)
            x = torch.cat([call.x for call in recorded]).to(exact)
            if len(x) != len(u):
                raise ConfigError(f"{name} gets {len(x)} rows in the converted model and {len(u)} in the teacher")
            if weights is not None and len(weights) != len(u):
                raise ConfigError(f"{name} gets {len(u)} rows in a batch that has {len(weights)} weights")
            x, u, weights = finite_rows(x, u, weights)
            y = function(u) / function.scale_out
            if self.call_counts[name] >= HOLD_OUT_EVERY:
                index += 1
                yield LayerBatch(x, y, weights, index % HOLD_OUT_EVERY == 0)
                continue
            cut = len(x) - len(x) // HOLD_OUT_EVERY
            for part, held_out in ((slice(cut), False), (slice(cut, None), True)):
                yield LayerBatch(x[part], y[part], None if weights is None else weights[part], held_out)

    def _count(self, names: Sequence[str]) -> tuple[int, int]:
        modules = [self.new.get(name, self.linears.dense[name]) for name in names]
        return sum(map(count_parameters, modules)), sum(m.weight.numel() for m in modules)


def finite_rows(x: Tensor, u: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Without the rows that hold infinities or NaN, as padding does: nothing can be fitted to them."""
    finite = x.isfinite().all(dim=1) & u.isfinite().all(dim=1)
    if bool(finite.all()):
        return x, u, weights
    return x[finite], u[finite], None if weights is None else weights[finite]
