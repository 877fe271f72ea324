"""What a conversion is worth, measured: time of field queries, and photographs on rays that were not fitted to."""

from __future__ import annotations

from nerfstudio.models.base_model import Model

from eugen_nerf.core.distributed import first_process_value
from eugen_nerf.core.errors import RunError
from eugen_nerf.fields.counting import macs_per_query
from eugen_nerf.fields.query_timing import Ratio, field_query_callable, speed_ratios, time_interleaved
from eugen_nerf.methods.runs.loading import query_module

NUM_QUERIES = 16_384


def query_speedup(teacher: Model, student: Model, repeats: int = 7) -> Ratio:
    """How many times faster the student evaluates field queries, in turns with the teacher in this process."""
    device = teacher.device
    calls = {
        name: field_query_callable(query_module(model).eval(), NUM_QUERIES, 0, device)
        for name, model in (("teacher", teacher), ("student", student))
    }
    ratio = speed_ratios(time_interleaved(calls, warmup=2, repeats=repeats, device=device), "teacher")["student"]
    return Ratio(*first_process_value((ratio.median, ratio.lower_quartile, ratio.upper_quartile)))


def query_macs(model: Model) -> int:
    """Multiply-adds of one query, all networks that it takes included.

    Raises:
        RunError: a model whose field has no linear layer to count them at.
    """
    count, how = macs_per_query(query_module(model), model.device)
    if count is None:
        raise RunError(f"multiply-adds of {type(model).__name__} are {how}")
    return count
