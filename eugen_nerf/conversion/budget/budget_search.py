"""A budget instead of numbers of features: preview, allotment, conversion, measurement, one correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.base_model import Model
from torch import Tensor

from eugen_nerf.conversion.budget.field_preview import Preview
from eugen_nerf.conversion.budget.measure import Photographs, query_macs, query_speedup
from eugen_nerf.conversion.conversion_settings import DistillConfig, Plan
from eugen_nerf.conversion.ray_samples import choose_rays
from eugen_nerf.conversion.run_writer import FieldReport
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.fitting.allocation import Combination, within_budget
from eugen_nerf.core.fitting.recipes.recipe import Recipe
from eugen_nerf.core.fitting.recipes.registry import RECIPES
from eugen_nerf.fields.query_timing import Ratio
from eugen_nerf.methods.runs.loading import Run

CHECK_RAYS = 4096
"""Rays that are compared with photographs; none of them is fitted to."""
_AIM = 0.9
"""Share of the allowed error that is aimed at, so that the measured one stays within."""
_ENOUGH = 0.6
"""A result that uses this share of what is allowed needs no second conversion."""

Goal = Literal["speedup", "max_drop", "macs"]


class Convertible(Protocol):
    """What a budget asks of a conversion: `Conversion` of graphs of layers, or `StockConversion`."""

    config: DistillConfig
    cameras: Cameras
    rays: Tensor
    recipe: Recipe

    @property
    def teacher(self) -> Any:
        """The run's model."""

    @property
    def makes_pictures(self) -> bool:
        """Whether there are photographs to compare with."""

    def preview(self, progress: Callable[[str], None] = ...) -> Preview:
        """What would be lost."""

    def convert(
        self,
        plan: Plan,
        progress: Callable[[str, str], None] = ...,
        metrics: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> tuple[TrainerConfig, Any, list[FieldReport]]:
        """The student of a plan."""

    def sketch(self, plan: Plan) -> Any:
        """A model of the student's shape, weights aside."""


@dataclass(frozen=True)
class Measured:
    """What a student turned out to be."""

    multiply_adds: int
    speedup: Ratio
    drop: float | None
    """dB of PSNR against photographs, teacher minus student; None where a run makes no pictures."""
    predicted_drop: float | None


@dataclass(frozen=True)
class Fulfilled:
    """A budget that was met."""

    trainer: TrainerConfig
    student: Model
    reports: list[FieldReport]
    preview: Preview
    point: Combination
    measured: Measured
    teacher_psnr: float | None
    """Against photographs, dB."""

    def predicted(self, point: Combination) -> float | None:
        """dB that a point of the front is predicted to lose; None where what is seen of an error is not known."""
        return predicted_drop(self.preview, point, self.teacher_psnr)

    def record(self) -> dict[str, object]:
        """Plain data: chosen widths, predicted against measured, and the whole front."""
        seen = self.preview
        return {
            "teacher_psnr": self.teacher_psnr,
            "teacher_multiply_adds": seen.teacher_macs,
            "num_features": seen.plan(self.point),
            "measured": asdict(self.measured),
            "front": [
                {
                    "multiply_adds": p.multiply_adds,
                    "predicted_squared_error": p.error,
                    "predicted_drop": self.predicted(p),
                    "num_features": {group: part.num_features for group, part in p.parts.items()},
                }
                for p in seen.front
            ],
        }


def predicted_drop(seen: Preview, point: Combination, teacher_psnr: float | None, scale: float = 1.0) -> float | None:
    """dB that a point is predicted to lose against photographs; None where what is seen of an error is not known."""
    if teacher_psnr is None or not seen.seen:
        return None
    return _decibels(1 + scale * point.error * 10 ** (teacher_psnr / 10))


def fulfil(
    run: Run,
    conversion: Convertible,
    goal: Goal,
    value: float,
    progress: Callable[[str, str], None] = lambda which, layer: None,
) -> Fulfilled:
    """Converts a run within a budget.

    Args:
        run: the teacher's.
        conversion: of the run.
        goal: speedup: measured time of field queries, teacher over student, at least `value`. max_drop: PSNR against
            photographs on rays not fitted to, teacher minus student, at most `value` dB. macs: multiply-adds of a
            query at most `value` of the teacher's.
        value: see `goal`.
        progress: called with a field and what was done for it.

    Raises:
        ConfigError: a value that makes no sense.
        RunError: the budget cannot be met; the message says what can. Nothing is written.
    """
    check_goal(goal, value, conversion.recipe)
    seen = conversion.preview(lambda name: progress(name, "moments"))
    photographs = Photographs(run, check_rays(conversion)) if conversion.makes_pictures else None
    if goal == "max_drop" and photographs is None:
        raise ConfigError("--max-drop is about photographs, and this run makes no pictures: take --speedup or --macs")
    if goal == "max_drop" and not conversion.config.output_aware:
        raise ConfigError("--max-drop needs to know what is seen of an error: leave --no-output-aware out")
    psnr = None if photographs is None else -_decibels(photographs.squared_error(conversion.teacher))

    def build(point: Combination, scale: float) -> Fulfilled:
        plan = seen.plan(point)
        if not any(plan.values()):
            raise RunError("within this budget no layer can be replaced: allow more, or keep the run as it is")
        trainer, student, reports = conversion.convert(plan, progress, seen.metrics)
        drop = None if photographs is None or psnr is None else psnr + _decibels(photographs.squared_error(student))
        faster = query_speedup(conversion.teacher, student)
        measured = Measured(query_macs(student), faster, drop, predicted_drop(seen, point, psnr, scale))
        return Fulfilled(trainer, student, reports, seen, point, measured, psnr)

    if goal == "macs":
        return build(within_budget(seen.front, value * seen.teacher_macs), 1.0)
    if goal == "speedup":
        return build(_fast_enough(conversion, seen, value, progress), 1.0)
    assert psnr is not None
    return _good_enough(build, seen.front, 10 ** (-psnr / 10), value)


def _fast_enough(
    conversion: Convertible, seen: Preview, speedup: float, progress: Callable[[str, str], None]
) -> Combination:
    """The point with the least predicted error whose networks, weights aside, answer queries fast enough."""
    low, high = 0, len(seen.front) - 1  # the cheapest is the fastest
    best: Combination | None = None
    fastest = 0.0
    guess = max(
        (i for i, point in enumerate(seen.front) if point.multiply_adds * speedup <= seen.teacher_macs), default=0
    )
    middle = guess
    for _ in range(9):
        point = seen.front[middle]
        ratio = query_speedup(conversion.teacher, conversion.sketch(seen.plan(point))).median
        progress("all", f"{ratio:.2f}x with {point.multiply_adds:,} multiply-adds")
        fastest = max(fastest, ratio)
        if ratio >= speedup:
            best, low = point, middle
            if ratio < 1.05 * speedup:
                break
        else:
            high = middle - 1
        if low >= high:
            break
        # in steps of cost, not of points: the front is dense where it is dear
        aim = math.sqrt(seen.front[low].multiply_adds * seen.front[high].multiply_adds)
        middle = min(max(low + 1, sum(p.multiply_adds <= aim for p in seen.front) - 1), high)
    if best is None:
        raise RunError(
            f"{speedup:g}x cannot be reached by the layers that may be replaced: {fastest:.2f}x is the most that was "
            "measured; nothing was written"
        )
    return best


def _good_enough(
    build: Callable[[Combination, float], Fulfilled], front: Sequence[Combination], truth: float, max_drop: float
) -> Fulfilled:
    """The cheapest point within a drop: by the prediction, then with the prediction corrected, at most twice."""
    allowed = truth * (10 ** (max_drop / 10) - 1)
    scale = 1.0
    tried: list[Fulfilled] = []
    for _ in range(3):
        affordable = [p for p in front if scale * p.error <= _AIM * allowed]
        point = affordable[0] if affordable else front[-1]
        if any(point is each.point for each in tried):
            break
        tried.append(build(point, scale))
        measured = truth * (10 ** (_drop(tried[-1]) / 10) - 1)
        within = any(_drop(each) <= max_drop for each in tried)
        if _ENOUGH * allowed <= measured <= allowed or (within and len(tried) > 1):
            break
        scale = max(measured, 0.1 * allowed) / max(point.error, 1e-12)
    met = [each for each in tried if _drop(each) <= max_drop]
    if not met:
        best = min(tried, key=_drop)
        raise RunError(
            f"a drop of at most {max_drop:g} dB was not reached in closed form: {_drop(best):.2f} dB at "
            f"{best.measured.speedup.median:.2f}x is the best of {len(tried)} conversions. Allow more, use more rays "
            "(--ray-fraction, --max-rays) or calibrate (--finetune-steps); nothing was written"
        )
    return min(met, key=lambda each: each.measured.multiply_adds)


def _drop(result: Fulfilled) -> float:
    assert result.measured.drop is not None
    return result.measured.drop


def check_rays(conversion: Convertible) -> Tensor:
    """Rays behind those that are fitted to, in the same random order."""
    used = len(conversion.rays)
    rays = choose_rays(conversion.cameras, 1.0, used + CHECK_RAYS, conversion.config.seed)[used:]
    if not len(rays):
        raise ConfigError("every pixel is fitted to and none is left to check with: take a smaller --ray-fraction")
    return rays


def training_rays(conversion: Convertible, limit: int = 1 << 21) -> Tensor:
    """Rays for calibration: all but those of `check_rays`, at most `limit`."""
    used = len(conversion.rays)
    every = choose_rays(conversion.cameras, 1.0, limit, conversion.config.seed)
    return torch.cat([every[:used], every[used + CHECK_RAYS :]])


def check_goal(goal: Goal, value: float, recipe: Recipe) -> None:
    """Raises `ConfigError` for a value of a budget that makes no sense, or one that a recipe cannot be given."""
    limits: Mapping[Goal, tuple[float, float]] = {"speedup": (1, 1000), "max_drop": (0, 60), "macs": (0, 1)}
    low, high = limits[goal]
    if not low < value < high:
        raise ConfigError(f"--{goal.replace('_', '-')} must lie between {low:g} and {high:g}, got {value:g}")
    if goal != "macs" and recipe.allocates != "neurons":
        previewed = ", ".join(name for name, other in RECIPES.items() if other.allocates == "neurons")
        raise ConfigError(
            f"--{goal.replace('_', '-')} previews {previewed} alone: leave --recipe {recipe.name} out, or give --macs"
        )


def _decibels(ratio: float) -> float:
    return 10 * math.log10(max(ratio, 1e-12))
