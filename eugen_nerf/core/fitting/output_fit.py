"""What recipes share: an empty layer, the sums that Eq. (31) is solved from, gradient steps, errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from eugen_nerf.core.distributed import process_count, summed
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.fitting.layer_batches import HOLD_OUT_EVERY, Replay
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.least_squares import MomentSums
from eugen_nerf.core.training.muon import BatchedMuon, is_orthogonalised

_ADAM_SHARE = 0.25
"""Adam's rate over Muon's, as in training."""


def empty_layer(old: DenseLinear, count: int, eugen: EUGenConfig, seed: int) -> EUGenLinear:
    """An EUGen layer of a dense layer's size, dtype and device: G is drawn, nothing is fitted.

    Args:
        old: the dense layer.
        count: number of features m.
        eugen: degree, Phi, norm and distribution of G.
        seed: of G.
    """
    eugen = replace(eugen, num_features=count, weights="free", bias=True, seed=seed)
    layer = EUGenLinear(old.in_features, old.out_features, eugen).to(old.weight)
    layer.draw_norm_column()
    return layer


def output_moments(
    features: Callable[[Tensor], Tensor], width: int, old: DenseLinear, replay: Replay
) -> tuple[MomentSums, MomentSums]:
    """Moments of features against the teacher's outputs: of the samples that are fitted to, and of those held out.

    Args:
        features: of inputs `[n, d]`: `[n, width]`.
        width: number of features.
        old: the dense layer.
        replay: its batches.

    Raises:
        ConfigError: no held-out samples.
    """
    fit, held_out = (MomentSums(width, old.out_features) for _ in range(2))
    with torch.no_grad():
        for batch in replay():
            (held_out if batch.held_out else fit).add(features(batch.x), batch.y, batch.weights)
    fit, held_out = fit.summed(), held_out.summed()
    if held_out.count == 0:
        raise ConfigError(f"too few samples to convert a layer: at least {HOLD_OUT_EVERY} batches are needed")
    return fit, held_out


def train_layer(layer: EUGenLinear, replay: Replay, config: ConversionConfig, held_out: MomentSums) -> float:
    """Gradient descent on one layer (Huber loss, App. E.4), which never ends worse than it starts.

    Args:
        layer: changed.
        replay: its batches.
        config: number of steps, and Muon's first learning rate, which falls along a cosine.
        held_out: moments of the held-out samples.

    Returns:
        The relative error on held-out samples.

    Raises:
        ConfigError: more than one process.
    """
    if process_count() > 1:
        raise ConfigError("gradient descent on a layer runs in one process: leave --train-steps out")
    trained = [p for p in layer.parameters() if p.requires_grad]
    matrices, rest = ([p for p in trained if is_orthogonalised(p) is whether] for whether in (True, False))
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, lr=_ADAM_SHARE * config.train_lr)] if rest else []
    optimizers += [BatchedMuon(matrices, lr=config.train_lr)] if matrices else []
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(each, config.train_steps) for each in optimizers]
    best, kept = _squared_error(layer, replay), copy.deepcopy(layer.state_dict())
    made = 0
    while made < config.train_steps:
        for batch in replay():
            if batch.held_out or made >= config.train_steps:
                continue
            with torch.enable_grad():
                losses = torch.nn.functional.huber_loss(layer(batch.x), batch.y, reduction="none").mean(dim=1)
                loss = (losses if batch.weights is None else losses * batch.weights).mean()
                layer.zero_grad()
                loss.backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            made += 1
    error = _squared_error(layer, replay)
    if not error < best:
        layer.load_state_dict(kept)
        error = best
    return error / max(held_out.variation(), 1e-300)


@torch.no_grad()
def _squared_error(layer: EUGenLinear, replay: Replay) -> float:
    total = 0.0
    for batch in replay():
        if batch.held_out:
            square = (layer(batch.x) - batch.y).double().square().sum(dim=1)
            total += float((square if batch.weights is None else square * batch.weights).sum())
    return total


@torch.no_grad()
def relative_error(layer: FeatureLayer, replay: Replay) -> float:
    """Squared error on held-out samples over the variation of the targets there.

    Raises:
        ConfigError: no held-out samples.
    """
    variation: MomentSums | None = None
    error = torch.zeros((), dtype=torch.float64)
    for batch in replay():
        if batch.held_out:
            square = (layer(batch.x) - batch.y).double().square().sum(dim=1)
            error += (square if batch.weights is None else square * batch.weights).sum().cpu()
            variation = variation or MomentSums(0, batch.y.shape[1])
            variation.add(batch.x[:, :0], batch.y, batch.weights)
    if variation is None:
        raise ConfigError(f"too few samples to convert a layer: at least {HOLD_OUT_EVERY} batches are needed")
    return float(summed(error)) / max(variation.summed().variation(), 1e-300)
