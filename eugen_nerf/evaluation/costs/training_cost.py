"""What training costs: seconds and memory of training iterations, the runs taking turns in one process.

A run goes on from its checkpoint, with the optimizers' state in it, in memory alone: no file is written. Batches are
drawn before the clock starts, because some data managers prepare them in processes of their own and others do not.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from rich.console import Console

from eugen_nerf.core.errors import EugenError, RunError
from eugen_nerf.evaluation.costs.resources import peak_memory
from eugen_nerf.evaluation.stage_lines import counted, followed
from eugen_nerf.fields.query_timing import medians, speed_ratios, time_interleaved
from eugen_nerf.methods.runs.checkpoints import first_line, read_latest_checkpoint
from eugen_nerf.methods.runs.loading import Run

WARMUP = 1
"""Iterations before the timed ones: the first allocates gradients and may build what later ones keep."""
KEYS = (
    *("iteration_seconds", "iteration_speed_ratio", "iteration_speed_ratio_quartiles", "iteration_seconds_per_round"),
    *("iteration_peak_memory_bytes", "rays_per_iteration"),
)
"""What a row holds of it."""

Batch = tuple[Any, dict[str, Any]]
"""What a data manager gives for an iteration: rays (or a camera), and the pixels to compare with."""


def draw_batches(run: Run, iterations: int, *, seed: int) -> list[Batch]:
    """The training batches that `training_costs` needs for a number of timed iterations.

    Runs of the same data and batch size get the same rays, as far as their data managers draw in this process and were
    built under the same seed: they shuffle the images then.

    Args:
        run: its data manager's background processes, where it has any, must still be at work.
        iterations: timed iterations.
        seed: of the pixels drawn.

    Raises:
        RunError: the data manager gives no training batches.
    """
    manager = run.pipeline.datamanager
    count = WARMUP + iterations + 1  # the last one for memory
    try:
        with seeded(seed, run.pipeline.device):
            return [manager.next_train(run.step + 1 + i) for i in range(count)]
    except EugenError:
        raise
    except Exception as error:  # whatever a plugin's data manager raises
        raise RunError(
            f"{run.path}: {type(manager).__name__} gives no training batches ({type(error).__name__}: "
            f"{first_line(error)}); compare this run without --train-iterations"
        ) from error


def training_costs(
    runs: Mapping[str, Run],
    batches: Mapping[str, Sequence[Batch]],
    baseline: str,
    console: Console | None = None,
) -> dict[str, dict[str, Any]]:
    """Time and memory of training iterations, by run: dictionaries with `KEYS`.

    Afterwards the runs' weights are others, in memory; the pipelines are in evaluation mode again.

    Args:
        runs: by name, all on one device.
        batches: of each run, from `draw_batches`.
        baseline: the name that speeds are compared with.
        console: where progress goes; standard error by default.

    Raises:
        RunError: a run's optimizers cannot be set up.
    """
    trainees = {name: Trainee(run, batches[name]) for name, run in runs.items()}
    device = next(iter(runs.values())).pipeline.device
    repeats = len(batches[baseline]) - WARMUP - 1
    steps = {name: trainee.iterate for name, trainee in trainees.items()}
    with counted("timing training iterations", (WARMUP + repeats) * len(runs), console, timed=True) as done:
        counting = {name: followed(step, done) for name, step in steps.items()}
        seconds = time_interleaved(counting, warmup=WARMUP, repeats=repeats, device=device)
    ratios, middle = speed_ratios(seconds, baseline), medians(seconds)
    costs = {}
    for name, trainee in trainees.items():
        ratio = asdict(ratios[name])
        costs[name] = {
            "iteration_seconds": middle[name],
            "iteration_speed_ratio": ratio["median"],
            "iteration_speed_ratio_quartiles": [ratio["lower_quartile"], ratio["upper_quartile"]],
            "iteration_seconds_per_round": seconds[name],
            "iteration_peak_memory_bytes": trainee.peak_memory(),
            "rays_per_iteration": trainee.rays,
        }
        trainee.run.pipeline.eval()
    return costs


class Trainee:
    """A run that trains on in memory, an iteration a call, as nerfstudio's trainer does it but for logs and files.

    Args:
        run: in any mode; it is put into training mode.
        batches: one for each call.

    Raises:
        RunError: the run's optimizers cannot be set up.
    """

    def __init__(self, run: Run, batches: Sequence[Batch]) -> None:
        self.run = run
        self.rays = len(batches[0][0]) if isinstance(batches[0][0], RayBundle) else None
        self._batches = iter(batches)
        self._step = run.step
        self._cuda = run.pipeline.device.type == "cuda"
        # on a CPU nerfstudio switches both off
        self._mixed = run.config.mixed_precision and self._cuda
        self._scaler = _grad_scaler((run.config.mixed_precision or run.config.use_grad_scaler) and self._cuda)
        self._optimizers = _optimizers(run)
        self._callbacks = run.pipeline.get_training_callbacks(
            TrainingCallbackAttributes(
                optimizers=self._optimizers, grad_scaler=self._scaler, pipeline=run.pipeline, trainer=None
            )
        )
        run.pipeline.train()

    def iterate(self) -> None:
        """One iteration: callbacks, forward, losses, backward, clipping and the optimizers' step.

        Learning rates stay as the checkpoint has them: schedulers would write into nerfstudio's log.
        """
        self._step += 1
        model, (rays, batch) = self.run.model, next(self._batches)
        self._call_back(TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        self._optimizers.zero_grad_some(self._groups(first=True))
        with torch.autocast(self.run.pipeline.device.type, enabled=self._mixed):
            outputs = model(rays)
            losses = model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))
            loss = functools.reduce(torch.add, losses.values())
        self._scaler.scale(loss).backward()
        self._optimizers.optimizer_scaler_step_some(self._scaler, self._groups(first=False))
        self._scaler.update()
        self._call_back(TrainingCallbackLocation.AFTER_TRAIN_ITERATION)

    def peak_memory(self) -> int:
        """Peak memory in bytes of one iteration, gradients among it; weights and optimizers' state are held before."""
        self._optimizers.zero_grad_all()
        return peak_memory(self.iterate, self.run.pipeline.device)

    def _groups(self, *, first: bool) -> list[str]:
        """Parameter groups whose gradients begin, or are complete, at this step: they may gather over several."""
        steps = self.run.config.gradient_accumulation_steps
        names = self._optimizers.parameters
        return [name for name in names if (self._step + (not first)) % steps.get(name, 1) == 0]

    def _call_back(self, location: TrainingCallbackLocation) -> None:
        for callback in self._callbacks:
            callback.run_callback_at_location(self._step, location)


def _optimizers(run: Run) -> Optimizers:
    """The optimizers of the run's config with the state of its checkpoint, so that training goes on where it ended."""
    try:
        # a shallow copy, as nerfstudio's trainer makes it: a group may be added
        optimizers = Optimizers(run.config.optimizers.copy(), run.pipeline.get_param_groups())
        _, state = read_latest_checkpoint(run.checkpoint.parent)
        optimizers.load_optimizers(state.get("optimizers", {}))
    except (RuntimeError, KeyError, ValueError) as error:
        raise RunError(
            f"{run.path}: the run's optimizers cannot be set up ({type(error).__name__}: {first_line(error)}); "
            "compare this run without --train-iterations"
        ) from error
    return optimizers


def _grad_scaler(enabled: bool) -> Any:
    kind = getattr(torch.amp, "GradScaler", None)  # torch 2.3 and later; the older name warns there
    return kind("cuda", enabled=enabled) if kind is not None else torch.cuda.amp.GradScaler(enabled=enabled)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within it, random numbers follow from a seed; afterwards they go on as if nothing had been drawn.

    Those of the CPU and of the device: no other is touched, for a look at a GPU takes hundreds of megabytes of it.
    """
    state = random.getstate()  # nerfstudio's data managers draw from both
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)
