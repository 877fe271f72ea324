"""Gradient calibration of a converted run on its training photographs: a little back-propagation, reported apart."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from nerfstudio.models.base_model import Model
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.optimizers import Algorithm, FieldOptimizerConfig
from eugen_nerf.methods.runs.training_rays import Photographs, ray_bundle

CANDIDATES: tuple[tuple[Algorithm, float], ...] = (
    *(("adam", rate) for rate in (1e-4, 3e-4, 1e-3)),
    *(("muon", rate) for rate in (3e-4, 1e-3, 3e-3)),
)
"""Optimizers and learning rates that are tried. The least are for fields that have little left to gain, such as a
teacher trained on: larger ones only take them away from where they are."""
_ROUNDS = ((len(CANDIDATES), 0.03), (2, 0.09))
"""Trials: how many of the best candidates a round tries, and for which share of the time or steps each. The first
alone is too short to decide: its differences are of the size of the noise."""
_CHECKS = 10
"""How often the student is compared with photographs while it trains."""


@dataclass(frozen=True)
class CalibrationReport:
    """What calibration did."""

    steps: int
    learning_rate: float
    """At the start; it falls to zero along a cosine."""
    seconds: float
    """Trials and checks included."""
    squared_error: tuple[float, float]
    """On the check rays, before and after: no step was made on them, but the state was chosen by them. Of a run with
    shares of its features, the geometric mean over these."""
    optimizer: Algorithm = "adam"
    share_errors: tuple[tuple[float, float], ...] = ()
    """Shares of its features, and the squared error at each afterwards, where the student has them."""

    def __str__(self) -> str:
        """What was done and what came of it, in one line."""
        before, after = map(_decibels, self.squared_error)
        if self.squared_error[1] < self.squared_error[0]:
            found = f"{before:.2f} -> {after:.2f} dB"
        else:
            found = f"no better than the initial {before:.2f} dB: the initial weights are kept"
        done = f"{self.steps} steps of {self.optimizer} at {self.learning_rate:g}, {self.seconds:.0f} s"
        shares = ", ".join(f"{_decibels(error):.2f} dB with {share:.4g}" for share, error in self.share_errors)
        apart = f", the mean over shares of the features: {shares}" if shares else ""
        return f"calibrated: {done}, on rays not trained on {found}{apart}"


def calibrate(
    student: Model,
    training: Photographs,
    check: Photographs,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    batch: int,
    seed: int = 0,
    progress: Callable[[float, str], None] = lambda share, what: None,
) -> CalibrationReport:
    """Trains all parameters of a student in place by its own loss, and keeps the state that is best on the check rays.

    Optimised camera poses are used and stay as they are: they belong to the photographs, not to the field.

    A student with shares of its features draws one each step (`GraphModel.forward`), and is compared at all of them.

    Optimizer and learning rate are those that do best on the check rays after short trials: all candidates, then the
    two best for longer, each from the student as it was given.

    Args:
        student: a converted model.
        training: rays to train on.
        check: other rays, to choose by.
        steps: number of optimizer steps after the trials.
        minutes: wall-clock time in all, where steps is None.
        batch: rays a step.
        seed: of the order of rays.
        progress: called with the share done and a line.

    Raises:
        ConfigError: neither steps nor minutes, or both.
    """
    if (steps is None) == (minutes is None) or (steps or 1) < 1 or (minutes or 1) <= 0:
        raise ConfigError("calibration takes a positive number of steps or of minutes, one of the two")
    start = time.perf_counter()
    before = _mean_error(student, check)
    best_error, best_state = before, copy.deepcopy(student.state_dict())
    first = best_state
    ranked = list(CANDIDATES)
    for count, share in _ROUNDS:
        trials = {}
        for candidate in ranked[:count]:
            student.load_state_dict(first)
            limit = max(1, round(share * steps)) if steps else None
            until = None if minutes is None else share * 60 * minutes
            _descend(student, training, candidate, batch, seed, limit, until, lambda done: None)
            trials[candidate] = _mean_error(student, check)
            progress(0.0, f"{candidate[0]}, learning rate {candidate[1]:g}: {trials[candidate]:.3e}")
        ranked = sorted(trials, key=trials.__getitem__)
    chosen = ranked[0]
    student.load_state_dict(first)
    done = 0

    def look(share: float) -> None:
        nonlocal best_error, best_state, done
        if share * _CHECKS < done + 1:
            return
        done = int(share * _CHECKS)
        error = _mean_error(student, check)
        if error < best_error:
            best_error, best_state = error, copy.deepcopy(student.state_dict())
        student.train()
        progress(share, f"squared error {error:.3e}, {before:.3e} before")

    left = None if minutes is None else 60 * minutes - (time.perf_counter() - start)
    taken = _descend(student, training, chosen, batch, seed, steps, left, look)
    student.load_state_dict(best_state)
    student.eval()
    algorithm, rate = chosen
    errors = tuple(_share_errors(student, check).items())
    return CalibrationReport(taken, rate, time.perf_counter() - start, (before, best_error), algorithm, errors)


def _share_errors(student: Model, check: Photographs) -> dict[float, float]:
    """The error on the check rays at each share of its features that the student was trained at."""
    errors = {}
    if isinstance(student, GraphModel):
        for share in student.trained_shares():
            with student.evaluated_at(share):
                errors[share] = check.squared_error(student)
    return errors


def _mean_error(student: Model, check: Photographs) -> float:
    """The error on the check rays; of a student with shares of its features that of the mean PSNR over these."""
    errors = [*_share_errors(student, check).values()]
    if not errors:
        return check.squared_error(student)
    return math.exp(sum(math.log(max(error, 1e-12)) for error in errors) / len(errors))


def _decibels(squared_error: float) -> float:
    return 10 * math.log10(1 / max(squared_error, 1e-12))


def _descend(
    student: Model,
    training: Photographs,
    candidate: tuple[Algorithm, float],
    batch: int,
    seed: int,
    steps: int | None,
    seconds: float | None,
    look: Callable[[float], None],
) -> int:
    """The optimizer with a cosine to zero over the steps, or over the time; returns the steps made."""
    student.train()
    trained = [p for n, p in student.named_parameters() if p.requires_grad and not n.startswith("camera_optimizer.")]
    algorithm, rate = candidate
    optimizer = FieldOptimizerConfig(algorithm=algorithm, lr=rate, eps=1e-8).setup(trained)
    rates = [group["lr"] for group in optimizer.param_groups]
    generator = torch.Generator().manual_seed(seed)
    cameras = training.cameras.to(student.device)
    start, made = time.perf_counter(), 0
    while True:
        share = made / steps if steps else (time.perf_counter() - start) / max(seconds or 0.0, 1e-9)
        if made:
            look(min(share, 1.0))
        if share >= 1:
            return made
        for group, first in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = first * 0.5 * float(1 + torch.cos(torch.tensor(torch.pi * share)))
        chosen = torch.randint(len(training.rays), (batch,), generator=generator)
        outputs = student(ray_bundle(cameras, training.rays[chosen].to(student.device)))
        truth = {"image": training.pixels[chosen].to(student.device)}
        losses = student.get_loss_dict(outputs, truth, student.get_metrics_dict(outputs, truth))
        loss: Tensor = torch.stack([*losses.values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        made += 1
