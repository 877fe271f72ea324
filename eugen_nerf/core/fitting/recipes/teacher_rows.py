"""G made of the teacher's own rows; A solved for by Eq. (31)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from eugen_nerf.core.distributed import summed
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.fitting.importance import LayerMoments, neuron_worth
from eugen_nerf.core.fitting.layer_batches import Replay
from eugen_nerf.core.fitting.output_fit import empty_layer, output_moments, train_layer
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig, FitResult, Recipe
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.least_squares import MomentSums, best_ridge, greedy_columns, ridge_solution

_SWEEP_RIDGE = 1e-6
_EXACT = 1e-10
"""Relative error that is rounding alone."""


@dataclass(frozen=True)
class NeuronRecipe(Recipe):
    """A recipe whose features are neurons of the teacher: degree 1, no norm, Phi is the teacher's activation."""

    allocates: ClassVar[Literal["neurons", "ranks", "evenly"]] = "neurons"
    chooses_neurons: ClassVar[bool] = True

    @property
    def keeps_plain_linears(self) -> bool:
        """G is a part of the layer's own matrix."""
        return True

    def layer_settings(self, eugen: EUGenConfig, function: str) -> EUGenConfig:
        """The configured settings with the teacher's activation."""
        return replace(eugen, degree=1, phi=function, norm=False)

    def new_layer(self, old: DenseLinear, count: int, eugen: EUGenConfig, *, seed: int) -> EUGenLinear:
        """A layer of at most as many features as the teacher's has rows."""
        if not 1 <= count <= old.out_features:
            raise ConfigError(
                f"cannot choose {count} features of {old.out_features} rows: choose 1 to {old.out_features}"
            )
        return empty_layer(old, count, self.layer_settings(eugen, old.function), seed)


@dataclass(frozen=True)
class TeacherRows(NeuronRecipe):
    """Some rows of the teacher as G, and A such that they stand for all of its outputs."""

    resolved: bool
    """Whether rows are solved for again, for the inputs that the layer really gets."""
    greedy: bool
    """Whether rows are chosen one after another, each for what the others leave; else those that count most alone."""

    def error_curve(self, moments: LayerMoments) -> Tensor:
        """Along the greedy path."""
        return moments.curve()

    def fit(
        self, layer: FeatureLayer, old: DenseLinear, replay: Replay, metric: Tensor, config: ConversionConfig
    ) -> FitResult:
        """Chooses the rows, then solves Eq. (31)."""
        assert isinstance(layer, EUGenLinear)
        rows = copy.deepcopy(old).requires_grad_(False)
        if self.resolved and old.function == "relu" and config.sweeps:
            _resolve_rows(rows, replay, config.sweeps)
        fit, held_out = output_moments(rows, old.out_features, old, replay)
        count = layer.config.num_features
        chosen = greedy_columns(fit, count, metric) if self.greedy else _heaviest_neurons(fit, count, metric)
        fit, held_out = fit.select(chosen), held_out.select(chosen)
        with torch.no_grad():
            layer.projection.copy_(rows.weight[chosen])
            assert layer.projection_bias is not None
            layer.projection_bias.copy_(rows.bias[chosen])
        weight, bias, ridge, error = best_ridge(fit, held_out)
        if len(chosen) == old.out_features:  # each row can also stand for itself, however few samples there are
            itself = torch.zeros_like(weight).index_put((chosen, torch.arange(len(chosen))), weight.new_ones(()))
            none = weight.new_zeros(old.out_features)
            alone = max(0.0, held_out.squared_error(itself, none)) / max(held_out.variation(), 1e-300)
            if alone <= max(error, _EXACT):
                weight, bias, ridge, error = itself, none, 0.0, alone
        layer.set_output(weight, bias)
        if config.train_steps:
            error = train_layer(layer, replay, config, held_out)
        return FitResult(error, ridge)


def _heaviest_neurons(moments: MomentSums, count: int, metric: Tensor) -> Tensor:
    """Neurons that count most, each on its own."""
    return neuron_worth(moments.gram.diagonal()[:-1], metric).argsort(descending=True)[:count]


@torch.no_grad()
def _resolve_rows(rows: DenseLinear, replay: Replay, sweeps: int) -> None:
    """Regresses the teacher's pre-activations on the inputs the layer really gets, aware of the ReLU that follows.

    Majorise-minimise: where the teacher's output is 0, any negative pre-activation is as good, so the target there is
    the present one clipped at 0. Each sweep solves against the same Gram matrix. A row keeps the solution that does
    best on held-out samples, so none ends worse than the teacher's own.
    """
    best, best_error = (rows.weight.clone(), rows.bias.clone()), _row_errors(rows, replay)
    if not best_error.any():  # no predecessor is converted: the teacher's rows are exact
        return
    moments = MomentSums(rows.in_features, rows.out_features)
    for sweep in range(sweeps):
        moments.clear_targets()
        for batch in replay():
            if not batch.held_out:
                u = torch.nn.functional.linear(batch.x, rows.weight, rows.bias)
                target = torch.where(batch.y > 0, batch.y, u.clamp(max=0))
                moments.add(batch.x, target, batch.weights, gram=sweep == 0)
        weight, bias = ridge_solution(moments.summed(), ridge=_SWEEP_RIDGE)
        assert bias is not None
        rows.weight.copy_(weight)
        rows.bias.copy_(bias)
        error = _row_errors(rows, replay)
        better = error < best_error
        best = torch.where(better[:, None], rows.weight, best[0]), torch.where(better, rows.bias, best[1])
        best_error = torch.minimum(error, best_error)
    rows.weight.copy_(best[0])
    rows.bias.copy_(best[1])


def _row_errors(rows: DenseLinear, replay: Replay) -> Tensor:
    """Squared error of each output on held-out samples, `[l]`, float64."""
    error = torch.zeros(rows.out_features, dtype=torch.float64, device=rows.weight.device)
    for batch in replay():
        if batch.held_out:
            square = (rows(batch.x) - batch.y).double().square()
            error += (square if batch.weights is None else square * batch.weights[:, None]).sum(dim=0)
    return summed(error)
