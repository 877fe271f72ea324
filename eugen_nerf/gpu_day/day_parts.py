"""The parts of a day in order of worth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DayPart:
    """One process's work.

    Attributes:
        name: in the results.
        function: "module:function", called with a `Day` and a `RowLog`.
        share: of the time that is left, against the shares of the parts that follow; seconds of a day of 12 minutes.
        least: seconds below which it is no use.
        beside: whether it runs at the same time as the part before: neither's times are kept.
    """

    name: str
    function: str
    share: float
    least: float = 10.0
    beside: bool = False


PARTS = (
    DayPart("networks", "eugen_nerf.gpu_day.measurements.plan_checks:check_networks", 95, least=60),
    DayPart("methods", "eugen_nerf.gpu_day.measurements.method_checks:check_methods", 95, least=60, beside=True),
    DayPart("training", "eugen_nerf.gpu_day.measurements.timed_sessions:train_families", 375, least=60),
    DayPart("commands", "eugen_nerf.gpu_day.console_runs:run_commands", 45, least=30),
    DayPart("queries", "eugen_nerf.gpu_day.measurements.network_rows:measure_networks", 85, least=20),
    DayPart("images", "eugen_nerf.gpu_day.measurements.image_rows:measure_methods", 40, least=20),
    DayPart("precision", "eugen_nerf.gpu_day.measurements.timed_sessions:train_precisions", 30, least=20),
    DayPart("launches", "eugen_nerf.gpu_day.measurements.launch_sweep:sweep", 15, least=10),
    DayPart("long", "eugen_nerf.gpu_day.measurements.timed_sessions:train_long", 35, least=40),
)
CHECKS = ("networks", "methods")
"""Parts whose errors are failures of the day."""
