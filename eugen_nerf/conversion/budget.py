"""A budget instead of numbers of features: preview, allotment, conversion, measurement, one correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor

from eugen_nerf.conversion.choose import Plan, selected_layers
from eugen_nerf.conversion.distill import Conversion, FieldMoments, FieldReport
from eugen_nerf.conversion.measure import Photographs, query_macs, query_speedup
from eugen_nerf.conversion.rays import choose_rays
from eugen_nerf.core.allocate import Combination, combined_front, pareto_front, within_budget
from eugen_nerf.core.convert import convertible_layers
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.peers import DenseLinear
from eugen_nerf.fields.timing import Ratio
from eugen_nerf.methods.base import GraphModel
from eugen_nerf.methods.runs import Run

CHECK_RAYS = 4096
"""Rays that are compared with photographs; none of them is fitted to."""
_AIM = 0.9
"""Share of the allowed error that is aimed at, so that the measured one stays within."""
_ENOUGH = 0.6
"""A result that uses this share of what is allowed needs no second conversion."""

Goal = Literal["speedup", "max_drop", "macs"]


def candidates(conversion: Conversion) -> dict[str, tuple[str, ...]]:
    """Layers that a budget may replace, by field; proposals are left alone.

    Raises:
        ConfigError: patterns that match nothing, or fields without a layer to convert.
    """
    fields = conversion.teacher.graph_fields()
    names = [name for name in conversion.chosen if not name.startswith("proposal")]
    possible = {name: convertible_layers(fields[name].network) for name in names}
    possible = selected_layers(possible, conversion.config)
    if not any(possible.values()):
        raise ConfigError(
            f"{', '.join(names)}: no dense layer to replace; take a run trained with --pipeline.model.variant dense"
        )
    return {name: tuple(layers) for name, layers in possible.items() if layers}


def field_groups(teacher: GraphModel, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Fields that share their settings and so their widths, by the one that counts for the cost."""
    groups: dict[str, tuple[str, ...]] = {}
    names = list(names)
    for name in names:
        mine = teacher.config.settings_of(name)[0]
        together = tuple(other for other in names if teacher.config.settings_of(other)[0] is mine)
        groups[together[-1]] = together  # the last field a ray meets makes the picture
    return groups


@dataclass(frozen=True)
class Preview:
    """What every layer would lose, and the undominated choices that follow."""

    moments: dict[str, FieldMoments]
    groups: dict[str, tuple[str, ...]]
    """Fields that share their settings and so their widths, by the one that counts for the cost."""
    front: list[Combination]
    """Errors are predicted mean squared changes of a colour channel; costs are multiply-adds of a query."""
    teacher_macs: int

    def plan(self, point: Combination) -> Plan:
        """The point as a conversion takes it: layers that keep their width stay dense."""
        plan: dict[str, dict[str, int]] = {}
        for group, names in self.groups.items():
            widths = {name: moment.outputs.gram.shape[0] - 1 for name, moment in self.moments[group].layers.items()}
            chosen = {n: m for n, m in point.parts[group].num_features.items() if m < widths[n]}
            plan |= dict.fromkeys(names, chosen)
        return plan

    def metrics(self) -> dict[str, dict[str, Tensor]]:
        """How neurons are chosen, by field and layer."""
        return {
            name: {layer: m.metric for layer, m in moments.layers.items()} for name, moments in self.moments.items()
        }


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
    student: GraphModel
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
    if teacher_psnr is None or not all(m.seen for m in seen.moments.values()):
        return None
    return _decibels(1 + scale * point.error * 10 ** (teacher_psnr / 10))


def preview(conversion: Conversion, progress: Callable[[str], None] = lambda name: None) -> Preview:
    """Gathers the moments of all layers that may be converted, in one pass a field, and allots features for every cost.

    Raises:
        ConfigError: patterns that match nothing, or fields without a layer to convert.
        RunError: fields with layers that are converted already.
    """
    teacher, possible = conversion.teacher, candidates(conversion)
    fields = teacher.graph_fields()
    for name in possible:
        network = fields[name].network
        taken = [layer for layer in network.names if not isinstance(network.layer(layer), DenseLinear)]
        if taken:
            raise RunError(
                f"budgets are for dense runs, and {taken[0]} of {name} is {type(network.layer(taken[0])).__name__} "
                "already: train one with --pipeline.model.variant dense, or give --num-features"
            )
    moments = {}
    for name, layers in possible.items():
        moments[name] = conversion.moments(name, layers, lambda name=name: progress(name))  # type: ignore[misc]
    groups, pruned = field_groups(teacher, possible), conversion.config.conversion.recipe == "pruned"
    fronts = {}
    for group, together in groups.items():
        curves = [moments[name].curves(pruned=pruned) for name in together]
        errors = {layer: (sum(c[layer] for c in curves) / 3).tolist() for layer in curves[0]}  # type: ignore[union-attr]
        fronts[group] = pareto_front(fields[group].network, errors)
    total = query_macs(teacher)
    fixed = total - sum(fields[group].network.multiply_adds() for group in groups)
    front = [Combination(c.parts, c.multiply_adds + fixed, c.error) for c in combined_front(fronts)]
    return Preview(moments, groups, front, total)


def fulfil(
    run: Run,
    conversion: Conversion,
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
    check_goal(goal, value)
    seen = preview(conversion, lambda name: progress(name, "moments"))
    photographs = Photographs(run, check_rays(conversion)) if conversion.teacher.makes_pictures else None
    if goal == "max_drop" and photographs is None:
        raise ConfigError("--max-drop is about photographs, and this run makes no pictures: take --speedup or --macs")
    if goal == "max_drop" and not conversion.config.output_aware:
        raise ConfigError("--max-drop needs to know what is seen of an error: leave --no-output-aware out")
    psnr = None if photographs is None else -_decibels(photographs.squared_error(conversion.teacher))

    def build(point: Combination, scale: float) -> Fulfilled:
        plan = seen.plan(point)
        if not any(plan.values()):
            raise RunError("within this budget no layer can be replaced: allow more, or keep the run as it is")
        trainer, student, reports = conversion.convert(plan, progress, seen.metrics())
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
    conversion: Conversion, seen: Preview, speedup: float, progress: Callable[[str, str], None]
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
        empty = conversion.untrained(conversion.described(seen.plan(point)))
        ratio = query_speedup(conversion.teacher, empty).median
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


def check_rays(conversion: Conversion) -> Tensor:
    """Rays behind those that are fitted to, in the same random order."""
    used = len(conversion.rays)
    rays = choose_rays(conversion.cameras, 1.0, used + CHECK_RAYS, conversion.config.seed)[used:]
    if not len(rays):
        raise ConfigError("every pixel is fitted to and none is left to check with: take a smaller --ray-fraction")
    return rays


def training_rays(conversion: Conversion, limit: int = 1 << 21) -> Tensor:
    """Rays for calibration: all but those of `check_rays`, at most `limit`."""
    used = len(conversion.rays)
    every = choose_rays(conversion.cameras, 1.0, limit, conversion.config.seed)
    return torch.cat([every[:used], every[used + CHECK_RAYS :]])


def check_goal(goal: Goal, value: float) -> None:
    """Raises `ConfigError` for a value of a budget that makes no sense."""
    limits: Mapping[Goal, tuple[float, float]] = {"speedup": (1, 1000), "max_drop": (0, 60), "macs": (0, 1)}
    low, high = limits[goal]
    if not low < value < high:
        raise ConfigError(f"--{goal.replace('_', '-')} must lie between {low:g} and {high:g}, got {value:g}")


def _decibels(ratio: float) -> float:
    return 10 * math.log10(max(ratio, 1e-12))
