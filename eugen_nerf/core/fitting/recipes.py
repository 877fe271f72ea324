"""One dense layer becomes an EUGen layer, or a peer of it: the recipes (Sec. 4 of the paper, App. B.2)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from eugen_nerf.core.choices import BY_ROWS, Recipe
from eugen_nerf.core.distributed import process_count, summed
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.fitting.baseline_recipes import fit_low_rank, fit_pruned
from eugen_nerf.core.fitting.importance import neuron_worth
from eugen_nerf.core.fitting.layer_batches import HOLD_OUT_EVERY, Replay
from eugen_nerf.core.layers.baselines import DenseLinear, LowRankLinear
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.least_squares import MomentSums, best_ridge, greedy_columns, ridge_solution
from eugen_nerf.core.training.muon import BatchedMuon, is_orthogonalised

_SWEEP_RIDGE = 1e-6


_ADAM_SHARE = 0.25
"""Adam's rate over Muon's, as in training."""
_EXACT = 1e-10
"""Relative error that is rounding alone."""
_LEAST_SPREAD = 1e-3
"""Of the inputs' largest, what the spread of a direction counts for at least when inputs are whitened."""


@dataclass(frozen=True)
class ConversionConfig:
    """How a dense layer becomes an EUGen layer.

    Examples:
        >>> from eugen_nerf.core import ConversionConfig, EUGenConfig
        >>> ConversionConfig().recipe, ConversionConfig(recipe="random", eugen=EUGenConfig(degree=2)).eugen.degree
        ('rows', 2)
    """

    recipe: Recipe = "rows"
    """rows: G is made of the teacher's own rows, chosen greedily for the layers that read the output; random: G is
    drawn at random, as in the paper; whitened: drawn for inputs made equally wide in all directions, as the data says.
    To compare with: pruned: the rows that count most, nothing solved for again; compensated: the same rows, A by
    Eq. (31); svd: weights of low rank; aware: low rank by the inputs' second moments."""
    eugen: EUGenConfig = field(default_factory=lambda: EUGenConfig(norm=False))
    """Degree, Phi, norm and distribution of a random G; `rows` takes Phi from the teacher's activation, degree 1, no
    norm."""
    sweeps: int = 4
    """Re-solves of the teacher's rows for the inputs the layer really gets, aware of its ReLU (`rows` only)."""
    train_steps: int = 0
    """Steps of gradient descent on the layer alone after the closed form: G, A and bias, Huber loss (App. E.4)."""
    train_lr: float = 1e-1
    """Learning rate of those steps (Muon; Adam, at a quarter of it, for what is no matrix of 8 by 8 or more)."""


def fit_layer(
    layer: FeatureLayer, old: DenseLinear, replay: Replay, metric: Tensor, config: ConversionConfig
) -> tuple[float, float]:
    """Sets G (for `rows`), A and the bias.

    Args:
        layer: from `projection_layer`; changed.
        old: the dense layer.
        replay: its pairs.
        metric: `[t, l]`; when neurons are chosen, an error e of the outputs counts as `|metric e|^2`.
        config: the recipe.

    Returns:
        The relative held-out error and the ridge chosen.
    """
    if isinstance(layer, LowRankLinear):
        return fit_low_rank(layer, old, replay, aware=config.recipe == "aware"), 0.0
    assert isinstance(layer, EUGenLinear)
    if config.recipe == "pruned":
        return fit_pruned(layer, old, replay, metric), 0.0
    if config.recipe == "whitened":
        _whiten(layer, replay)
    rows = config.recipe in ("rows", "compensated")
    candidates = copy.deepcopy(old).requires_grad_(False)
    if config.recipe == "rows" and old.function == "relu" and config.sweeps:
        _resolve_rows(candidates, replay, config.sweeps)
    features = candidates if rows else layer.features
    width = old.out_features if rows else layer.weight.shape[1]
    fit, held_out = (MomentSums(width, old.out_features) for _ in range(2))
    with torch.no_grad():
        for batch in replay():
            (held_out if batch.held_out else fit).add(features(batch.x), batch.y, batch.weights)
    fit, held_out = fit.summed(), held_out.summed()
    if held_out.count == 0:
        raise ConfigError(f"too few samples to convert a layer: at least {HOLD_OUT_EVERY} batches are needed")
    if rows:
        chosen = _chosen_rows(fit, layer.config.num_features, metric, greedy=config.recipe == "rows")
        fit, held_out = fit.select(chosen), held_out.select(chosen)
        with torch.no_grad():
            layer.projection.copy_(candidates.weight[chosen])
            assert layer.projection_bias is not None
            layer.projection_bias.copy_(candidates.bias[chosen])
    weight, bias, ridge, error = best_ridge(fit, held_out)
    if rows and len(chosen) == old.out_features:  # each row can also stand for itself, however few samples there are
        itself = torch.zeros_like(weight).index_put((chosen, torch.arange(len(chosen))), weight.new_ones(()))
        none = weight.new_zeros(old.out_features)
        alone = max(0.0, held_out.squared_error(itself, none)) / max(held_out.variation(), 1e-300)
        if alone <= max(error, _EXACT):
            weight, bias, ridge, error = itself, none, 0.0, alone
    layer.set_output(weight, bias)
    if config.train_steps:
        if process_count() > 1:
            raise ConfigError("gradient descent on a layer runs in one process: leave --train-steps out")
        error = _train_layer(layer, replay, config) / max(held_out.variation(), 1e-300)
    return error, ridge


def _chosen_rows(fit: MomentSums, count: int, metric: Tensor, *, greedy: bool) -> Tensor:
    """Rows whose values stand for those of all others best, or those that count most on their own."""
    if greedy:
        return greedy_columns(fit, count, metric)
    return neuron_worth(fit.gram.diagonal()[:-1], metric).argsort(descending=True)[:count]


@torch.no_grad()
def _whiten(layer: EUGenLinear, replay: Replay) -> None:
    """Turns G x into G C^(-1/2) (x - mean), C the covariance of the inputs; the norm's column stays as it was drawn."""
    moments = MomentSums(layer.in_features, 1)
    for batch in replay():
        if not batch.held_out:
            moments.add(batch.x, batch.y[:, :1], batch.weights)
    gram = moments.summed().gram
    mean = gram[:-1, -1] / gram[-1, -1]
    values, vectors = torch.linalg.eigh(gram[:-1, :-1] / gram[-1, -1] - torch.outer(mean, mean))
    spread = values.clamp_min(0).sqrt()
    spread = spread.clamp_min(max(float(spread[-1]) * _LEAST_SPREAD, 1e-300))
    blocks = layer.projection.double().cpu() @ (vectors / spread) @ vectors.T
    layer.projection.copy_(blocks)
    if layer.projection_bias is not None:
        layer.projection_bias.sub_((blocks @ mean).to(layer.projection_bias))


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


def projection_layer(old: DenseLinear, count: int, config: ConversionConfig, *, seed: int) -> FeatureLayer:
    """A layer with nothing fitted yet; where G is random, it is drawn.

    Raises:
        ConfigError: a number of features that the recipe cannot give a layer of these widths.
    """
    if config.recipe in ("svd", "aware"):
        return LowRankLinear(old.in_features, old.out_features, count, old.function).to(old.weight)
    if config.recipe in BY_ROWS:
        if not 1 <= count <= old.out_features:
            raise ConfigError(
                f"cannot choose {count} features of {old.out_features} rows: choose 1 to {old.out_features}"
            )
        eugen = replace(config.eugen, degree=1, phi=old.function, norm=False)
    else:
        eugen = config.eugen
        limit = 4 * max(old.in_features, old.out_features)
        if not 1 <= count <= limit:
            raise ConfigError(
                f"{count} features make no sense for a layer {old.out_features} wide; choose 1 to {limit}"
            )
    eugen = replace(eugen, num_features=count, weights="free", bias=True, seed=seed)
    layer = EUGenLinear(old.in_features, old.out_features, eugen).to(old.weight)
    layer.draw_norm_column()
    return layer


def _train_layer(layer: EUGenLinear, replay: Replay, config: ConversionConfig) -> float:
    """Gradient descent on one layer; returns the squared error on held-out samples, never worse than at the start."""
    trained = [p for p in layer.parameters() if p.requires_grad]
    matrices, rest = ([p for p in trained if is_orthogonalised(p) is whether] for whether in (True, False))
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, lr=_ADAM_SHARE * config.train_lr)] if rest else []
    optimizers += [BatchedMuon(matrices, lr=config.train_lr)] if matrices else []
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(each, config.train_steps) for each in optimizers]
    best, kept = _held_out_error(layer, replay), copy.deepcopy(layer.state_dict())
    step = 0
    while step < config.train_steps:
        for batch in replay():
            if batch.held_out or step >= config.train_steps:
                continue
            with torch.enable_grad():
                losses = torch.nn.functional.huber_loss(layer(batch.x), batch.y, reduction="none").mean(dim=1)
                loss = (losses if batch.weights is None else losses * batch.weights).mean()
                layer.zero_grad()
                loss.backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            step += 1
    error = _held_out_error(layer, replay)
    if not error < best:
        layer.load_state_dict(kept)
        error = best
    return error


@torch.no_grad()
def _held_out_error(layer: EUGenLinear, replay: Replay) -> float:
    total = 0.0
    for batch in replay():
        if batch.held_out:
            square = (layer(batch.x) - batch.y).double().square().sum(dim=1)
            total += float((square if batch.weights is None else square * batch.weights).sum())
    return total
