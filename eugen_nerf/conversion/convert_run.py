"""The way of a weight from a trained run to its student: the stages, and the calls that join them.

open_teacher      load: the run as a `Teacher`, its rays drawn, calls of stock fields recorded
convert_teacher   choose: numbers of features as configured, or allocated by a preview of what layers would lose
                  fit: layer after layer, by a recipe
                  measure, where there is a budget: speed, and photographs that were not fitted to; a limit on the
                  loss that is missed goes back to choose
finetune          a little gradient descent on the photographs, where it is wanted
write_run         (`run_writer.py`) the student as a run of its own

`cli/distill.py` loads the run and calls the four in this order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from nerfstudio.models.base_model import Model

from eugen_nerf.conversion.budget.baseline_budget import rank_plan, uniform_plan
from eugen_nerf.conversion.budget.budget_search import BudgetResult, Goal, check_goal, convert_to_budget
from eugen_nerf.conversion.calibration import CalibrationReport, calibrate
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.teachers.graph_runs import has_graphs
from eugen_nerf.conversion.teachers.graph_teacher import GraphTeacher
from eugen_nerf.conversion.teachers.module_teacher import ModuleTeacher
from eugen_nerf.conversion.teachers.teacher import FieldProgress, Student, Teacher, no_progress
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.runs.training_rays import Photographs


class Budget(NamedTuple):
    """What a student may cost, or lose."""

    goal: Goal
    value: float


@dataclass(frozen=True)
class Converted:
    """A student, and how it was chosen."""

    student: Student
    budget: BudgetResult | None = None
    """Where widths were allocated by a preview."""


def open_teacher(run: Run, config: DistillConfig, *, keep: bool = False) -> Teacher:
    """A run as what is converted: by its fields where these are graphs of layers, else by its linear layers.

    Args:
        run: loaded with its training views; unchanged.
        config: what to replace.
        keep: whether layers that are done are kept on disk; see `GraphTeacher`.

    Raises:
        ConfigError: patterns that match nothing, or too few rays.
        RunError: a run that cannot be converted, or a place that is taken.
    """
    return GraphTeacher(run, config, keep=keep) if has_graphs(run) else ModuleTeacher(run, config)


def convert_teacher(teacher: Teacher, budget: Budget | None = None, progress: FieldProgress = no_progress) -> Converted:
    """Chooses numbers of features and fits the layers.

    Args:
        teacher: from `open_teacher`.
        budget: numbers of features as they are configured where None.
        progress: called with a field and what was done for it.

    Raises:
        ConfigError: numbers of features or a budget that make no sense.
        RunError: a budget that cannot be met; the message says what can.
    """
    if budget is None:
        plan = teacher.configured_plan()
        return Converted(teacher.convert(plan, progress, teacher.metrics(plan, progress)))
    check_goal(*budget, teacher.recipe)
    if teacher.recipe.allocates == "neurons":
        result = convert_to_budget(teacher, *budget, progress)
        return Converted(result.student, result)
    ranks = teacher.recipe.allocates == "ranks"
    plan = rank_plan(teacher, budget.value, progress) if ranks else uniform_plan(teacher, budget.value)
    return Converted(teacher.convert(plan, progress))


def convert_run(run: Run, config: DistillConfig, progress: FieldProgress = no_progress) -> Student:
    """Converts a run with the numbers of features that are configured; `write_run` writes the student.

    Args:
        run: the teacher, loaded with its training views; unchanged.
        config: what to replace.
        progress: called with the field and the layer that is done.

    Raises:
        ConfigError: patterns that match nothing, or numbers of features that make no sense.
        RunError: a run of a method that cannot be converted, or a place that is taken.
    """
    return convert_teacher(open_teacher(run, config), progress=progress).student


def finetune(
    teacher: Teacher,
    student: Model,
    *,
    steps: int | None,
    minutes: float | None,
    progress: Callable[[float, str], None],
) -> CalibrationReport:
    """Trains a student in place on the training views' rays, as many a step as its teacher was trained on, and chooses
    its best state by the check rays.

    No layer is fitted to the check rays and no step is made on them, but they choose: here optimizer, rate and state,
    and before that how much a budget by loss replaces. What they measure is therefore no held-out error.

    Args:
        teacher: that it comes from.
        student: changed.
        steps: of the optimizer; see `calibrate`.
        minutes: in their place.
        progress: called with the share done and a line.
    """
    training, check = (Photographs(teacher.run, rays) for rays in (teacher.training_rays(), teacher.check_rays()))
    batch = teacher.trainer.pipeline.datamanager.train_num_rays_per_batch  # type: ignore[attr-defined]
    seed = teacher.config.seed
    return calibrate(student, training, check, steps=steps, minutes=minutes, batch=batch, seed=seed, progress=progress)
