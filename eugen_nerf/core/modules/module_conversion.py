"""Hidden layers of any PyTorch model: found, previewed and made narrower, all apart from the model itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.allocation import Allocation, candidate_widths, terms_front
from eugen_nerf.core.fitting.convert_graph import LayerReport
from eugen_nerf.core.fitting.cost_terms import Term
from eugen_nerf.core.fitting.importance import LayerMoments
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig
from eugen_nerf.core.fitting.recipes.registry import RECIPES, recipe_named
from eugen_nerf.core.least_squares import MomentSums
from eugen_nerf.core.modules.discovery import HiddenLayer, find_hidden, record_calls
from eugen_nerf.core.modules.discovery_batches import check_batches
from eugen_nerf.core.modules.layer_choice import NothingToConvert, check_layers, choose_layers, nothing_reason
from eugen_nerf.core.modules.linears import Linears
from eugen_nerf.core.modules.outputs import check_repeatable, tensors_in
from eugen_nerf.core.modules.sensitivity import output_metrics
from eugen_nerf.core.modules.shrinking import Narrowing, Weighted, finite_rows

_TRIED_BATCHES = 2
"""Batches that each layer is tried on before it is called hidden."""

Runs = Iterable[Callable[[], Sequence[Tensor]]]
"""Each runs the model, with gradients, and returns the outputs that count."""


@dataclass(frozen=True)
class ModulePreview:
    """What the hidden layers of a model would lose with fewer units, and the undominated choices that follow."""

    front: list[Allocation]
    """Cheapest first. Multiply-adds are those of one row through the layers and their consumers; errors those of
    `curves`, added up."""
    multiply_adds: int
    """The same at full width."""
    curves: dict[str, Tensor]
    """By layer, for 0, 1, ..., l units, float64 `[l + 1]`: the squared change of the outputs, summed over all that the
    model was run on; where outputs do not count, that of what the consumers get, as a share of what they lack
    without the layer."""
    metrics: dict[str, Tensor]
    """By layer, how neurons are chosen; empty where outputs do not count."""


class ModuleConversion:
    """A model whose hidden layers can be made narrower; it stays as it is, and has to be in evaluation mode.

    Args:
        model: trained.
        source: batches, each time anew and in the same order.
        call: runs the model on a batch.
        config: the recipe.
        layers: regular expressions on full module names; all hidden layers where empty.
        exclude: the same, of layers to leave alone.

    Raises:
        ConfigError: no batches, patterns that match nothing, a recipe that does not collapse, or a model whose
            outputs differ from call to call.
        NothingToConvert: patterns that match only what cannot be converted.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: nn.Module,
        source: Callable[[], Iterable[Any]],
        call: Callable[[nn.Module, Any], Any],
        config: ConversionConfig,
        *,
        layers: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> None:
        self.recipe = recipe_named(config.recipe)
        if not self.recipe.keeps_plain_linears:
            allowed = ", ".join(recipe.name for recipe in RECIPES.values() if recipe.keeps_plain_linears)
            raise ConfigError(f"recipe {config.recipe!r} puts a layer more into the model; choose {allowed}")
        settings = self.recipe.layer_settings(config.eugen, "relu")
        if settings.degree != 1 or settings.norm:
            raise ConfigError(
                f"degree {config.eugen.degree} and norm {config.eugen.norm} do not collapse into plain linear layers: "
                "take EUGenConfig(degree=1, norm=False), or convert a LayerGraph with convert_graph"
            )
        self.model, self.source, self.call, self.config = model, source, call, config
        beginning = list(itertools.islice(source(), _TRIED_BATCHES))
        if not beginning:
            raise ConfigError("there are no batches to learn from")
        runs = [partial(call, model, _batch_of(item)) for item in beginning]
        self.linears = Linears(model)
        check_layers(self.linears)
        check_repeatable(runs[0])
        found, refused = find_hidden(self.linears, runs[0])
        self.plan, self.skipped = choose_layers(self.linears, found, refused, layers, exclude, runs)
        every = (partial(call, model, _batch_of(item)) for item in source())
        late, self._call_counts = check_batches(self.linears, self.plan, every, len(runs))
        self.plan = [layer for layer in self.plan if layer.name not in late]
        self.skipped |= late
        if not self.plan:
            raise NothingToConvert(nothing_reason(late))

    @property
    def widths(self) -> dict[str, int]:
        """Units of each layer that can be made narrower, in the order of execution."""
        return {layer.name: self.linears.dense[layer.name].out_features for layer in self.plan}

    def metrics(self, runs: Runs | None = None) -> dict[str, Tensor]:
        """For each layer M `[t, l]`, by which neurons are chosen: see `output_metrics`.

        Args:
            runs: the outputs that count; all of the model on its batches where None.
        """
        if runs is None:
            batches = (_batch_of(item) for item in self.source())
            runs = (lambda batch=batch: tensors_in(self.call(self.model, batch), detached=False) for batch in batches)
        return output_metrics(self.linears, self.plan, runs)

    def preview(self, metrics: Mapping[str, Tensor], progress: Callable[[], None] = lambda: None) -> ModulePreview:
        """What every layer would lose, from one pass over the batches.

        Args:
            metrics: by layer, from `metrics`; empty where outputs do not count.
            progress: called after every batch.

        Raises:
            ConfigError: a recipe of random projections, which have no preview.
        """
        self.recipe.check_previewed()
        sums = {name: MomentSums(width, width) for name, width in self.widths.items()}
        modules = {name: self.linears.modules[name] for name in sums}
        with torch.no_grad():
            for item in self.source():
                weights = item.weights if isinstance(item, Weighted) else None
                recorded = record_calls(modules, partial(self.call, self.model, _batch_of(item)))
                for layer in self.plan:
                    if calls := [layer.function(call.u) for call in recorded if call.name == layer.name]:
                        values, _, kept = finite_rows(torch.cat(calls), torch.cat(calls), weights)
                        sums[layer.name].add(values, values, kept)
                progress()
        curves = {}
        for layer in self.plan:
            own = sums[layer.name]
            if layer.name in metrics:
                curves[layer.name] = self.recipe.error_curve(LayerMoments(own, metrics[layer.name])) * own.count
            else:
                curve = self.recipe.error_curve(LayerMoments(own, self._consumers(layer)))
                curves[layer.name] = curve / curve[0].clamp_min(1e-300)
        choices = {name: candidate_widths(width) for name, width in self.widths.items()}
        front = terms_front(self._terms(), choices, {name: curve.tolist() for name, curve in curves.items()})
        full = sum(term.cost(self.widths) for term in self._terms())
        return ModulePreview(front, full, curves, dict(metrics))

    def convert(
        self,
        counts: Mapping[str, int],
        metrics: Mapping[str, Tensor] | None = None,
        progress: Callable[[str], None] = lambda name: None,
    ) -> tuple[dict[str, nn.Linear], list[LayerReport]]:
        """Fits the layers one after another.

        Args:
            counts: units to keep, by layer; layers that are not named stay as they are.
            metrics: by layer, from `metrics`; the matrices of the consumers where missing.
            progress: called with each layer that is done.

        Returns:
            The layers that take the place of the model's, by name, and a report for each that was made narrower.
        """
        work = Narrowing(self.linears, self.source, self.call, self._call_counts, self.config)
        reports = []
        with torch.no_grad():
            for index, layer in enumerate(self.plan):
                if layer.name not in counts:
                    continue
                seed, metric = self.config.eugen.seed + index, (metrics or {}).get(layer.name)
                reports.append(work.convert(layer, counts[layer.name], seed, metric))
                progress(layer.name)
        return work.new, reports

    def sizes(self, counts: Mapping[str, int]) -> dict[str, tuple[int, int, bool]]:
        """Inputs, outputs and whether there is a bias, of every layer that `convert` would put into the model."""
        found: dict[str, tuple[int, int, bool]] = {}
        for layer in self.plan:
            if layer.name not in counts:
                continue
            module = self.linears.dense[layer.name]
            inputs, _, _ = found.get(layer.name, (module.in_features, 0, True))
            found[layer.name] = (inputs, counts[layer.name], True)
            for name, starts in layer.consumers.items():
                consumer = self.linears.dense[name]
                inputs, outputs, _ = found.get(name, (consumer.in_features, consumer.out_features, True))
                fewer = len(starts) * (module.out_features - counts[layer.name])
                found[name] = (inputs - fewer, outputs, True)
        return found

    def _terms(self) -> list[Term]:
        """What the layers and their consumers cost, by the numbers of units."""
        reads: dict[str, list[str]] = {}
        for layer in self.plan:
            reads.setdefault(layer.name, [])
            for name, starts in layer.consumers.items():
                reads.setdefault(name, []).extend([layer.name] * len(starts))
        terms = []
        for name, sources in reads.items():
            module = self.linears.dense[name]
            rows = name if name in self.widths else module.out_features
            rest = module.in_features - sum(self.widths[source] for source in sources)
            terms.append(Term(rows, tuple(sources), rest))
        return terms

    def _consumers(self, layer: HiddenLayer) -> Tensor:
        width = self.widths[layer.name]
        weights = {name: self.linears.dense[name].weight.detach() for name in layer.consumers}
        return torch.cat(
            [weights[n][:, s : s + width] for n, starts in layer.consumers.items() for s in starts]
        ).double()


def _batch_of(item: Any) -> Any:
    return item.batch if isinstance(item, Weighted) else item
