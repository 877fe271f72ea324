"""A budget instead of numbers of features: preview, allocation, conversion, measurement, correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from eugen_nerf.conversion.budget.field_preview import Preview
from eugen_nerf.conversion.budget.measure import query_macs, query_speedup
from eugen_nerf.conversion.teachers.teacher import FieldProgress, Student, Teacher, no_progress
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.fitting.allocation import Combination, within_budget
from eugen_nerf.core.fitting.recipes.recipe import Recipe
from eugen_nerf.core.fitting.recipes.registry import RECIPES
from eugen_nerf.fields.query_timing import Ratio
from eugen_nerf.methods.runs.training_rays import Photographs

_AIM = 0.9
"""Share of the allowed error that is aimed at, so that the measured one stays within."""
_ENOUGH = 0.6
"""A result that uses this share of what is allowed needs no second conversion."""

Goal = Literal["speedup", "max_drop", "macs"]


@dataclass(frozen=True)
class Measured:
    """Cost and quality of a student, measured."""

    multiply_adds: int
    speedup: Ratio
    drop: float | None
    """dB of PSNR against photographs, teacher minus student; None where a run renders no images."""
    predicted_drop: float | None


@dataclass(frozen=True)
class BudgetResult:
    """A student within a budget."""

    student: Student
    preview: Preview
    point: Combination
    measured: Measured
    teacher_psnr: float | None
    """Against photographs, dB."""

    def predicted(self, point: Combination) -> float | None:
        """dB that a point of the front is predicted to lose; None where effects on images are not measured."""
        return predicted_drop(self.preview, point, self.teacher_psnr)

    def record(self) -> dict[str, object]:
        """Plain data: chosen widths, predicted against measured, and the whole front."""
        preview = self.preview
        return {
            "teacher_psnr": self.teacher_psnr,
            "teacher_multiply_adds": preview.teacher_macs,
            "num_features": preview.plan(self.point),
            "measured": asdict(self.measured),
            "front": [
                {
                    "multiply_adds": p.multiply_adds,
                    "predicted_squared_error": p.error,
                    "predicted_drop": self.predicted(p),
                    "num_features": {group: part.num_features for group, part in p.parts.items()},
                }
                for p in preview.front
            ],
        }


def predicted_drop(
    preview: Preview, point: Combination, teacher_psnr: float | None, scale: float = 1.0
) -> float | None:
    """dB that a point is predicted to lose against photographs; None where effects on images are not measured."""
    if teacher_psnr is None or not preview.output_aware:
        return None
    return _decibels(1 + scale * point.error * 10 ** (teacher_psnr / 10))


def convert_to_budget(
    teacher: Teacher, goal: Goal, value: float, progress: FieldProgress = no_progress
) -> BudgetResult:
    """Converts a run within a budget.

    Args:
        teacher: the run.
        goal: speedup: measured time of field queries, teacher over student, at least `value`. max_drop: PSNR against
            photographs on rays not fitted to, teacher minus student, at most `value` dB. macs: multiply-adds of a
            query at most `value` of the teacher's.
        value: see `goal`.
        progress: called with a field and what was done for it.

    Raises:
        ConfigError: a value that makes no sense.
        RunError: the budget cannot be met; the message says what can. Nothing is written.
    """
    check_goal(goal, value, teacher.recipe)
    preview = teacher.preview(progress)
    photographs = Photographs(teacher.run, teacher.check_rays()) if teacher.renders_images else None
    if goal == "max_drop" and photographs is None:
        raise ConfigError("--max-drop is about photographs, and this run renders no images: take --speedup or --macs")
    if goal == "max_drop" and not teacher.config.output_aware:
        raise ConfigError("--max-drop needs the effect of errors on rendered images: leave --no-output-aware out")
    psnr = None if photographs is None else -_decibels(photographs.squared_error(teacher.model))

    def build(point: Combination, scale: float) -> BudgetResult:
        plan = preview.plan(point)
        if not any(plan.values()):
            raise RunError("within this budget no layer can be replaced: allow more, or keep the run as it is")
        student = teacher.convert(plan, progress, preview.metrics)
        drop = None
        if photographs is not None and psnr is not None:
            drop = psnr + _decibels(photographs.squared_error(student.model))
        faster = query_speedup(teacher.model, student.model)
        measured = Measured(query_macs(student.model), faster, drop, predicted_drop(preview, point, psnr, scale))
        return BudgetResult(student, preview, point, measured, psnr)

    if goal == "macs":
        return build(within_budget(preview.front, value * preview.teacher_macs), 1.0)
    if goal == "speedup":
        return build(_search_speedup(teacher, preview, value, progress), 1.0)
    assert psnr is not None
    return search_max_drop(build, preview.front, 10 ** (-psnr / 10), value)


def _search_speedup(teacher: Teacher, preview: Preview, speedup: float, progress: FieldProgress) -> Combination:
    """The point with the least predicted error whose networks, weights aside, are evaluated fast enough."""
    front = preview.front
    low, high = 0, len(front) - 1  # the cheapest is the fastest
    best: Combination | None = None
    fastest = 0.0
    middle = max((i for i, p in enumerate(front) if p.multiply_adds * speedup <= preview.teacher_macs), default=0)
    for _ in range(9):
        point = front[middle]
        ratio = query_speedup(teacher.model, teacher.sketch(preview.plan(point))).median
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
        aim = math.sqrt(front[low].multiply_adds * front[high].multiply_adds)
        middle = min(max(low + 1, sum(p.multiply_adds <= aim for p in front) - 1), high)
    if best is None:
        raise RunError(
            f"{speedup:g}x cannot be reached by the layers that may be replaced: {fastest:.2f}x is the most that was "
            "measured; nothing was written"
        )
    return best


def search_max_drop(
    build: Callable[[Combination, float], BudgetResult], front: Sequence[Combination], truth: float, max_drop: float
) -> BudgetResult:
    """The cheapest point within a drop: by the prediction, then with the prediction corrected, at most twice.

    Args:
        build: converts to a point; the scale is what its predicted error is multiplied by.
        front: undominated points, cheapest first.
        truth: the teacher's mean squared error against photographs.
        max_drop: dB.

    Raises:
        RunError: no conversion stays within it.
    """
    allowed = truth * (10 ** (max_drop / 10) - 1)
    scale = 1.0
    tried: list[BudgetResult] = []
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


def _drop(result: BudgetResult) -> float:
    assert result.measured.drop is not None
    return result.measured.drop


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
