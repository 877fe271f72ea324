"""A suite: runs trained and converted on one data set, then compared; described by a YAML file of plain data.

Every step is a command of nerfstudio's or of ours, with its own log; a step whose result is there is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from eugen_nerf.cli.suite_file import EVALUATORS, Suite
from eugen_nerf.cli.support.progress import working
from eugen_nerf.cli.support.runner import Job, WorkerPool, run_command, run_jobs, tool, wait_for
from eugen_nerf.core.atomic_paths import recover
from eugen_nerf.core.errors import DataError
from eugen_nerf.surfaces.files import write_texts

CONVERTED = {"vanilla-nerf": "eugen-nerf", "dnerf": "eugen-dnerf"}
"""Stock methods whose conversion is a run of another method; all others stay what they are."""


@dataclass(frozen=True)
class SuitePart:
    """One method on one scene of a suite; the names are empty where the suite has one alone."""

    scene: str
    method: str
    suite: Suite


def parts(suite: Suite) -> list[SuitePart]:
    """A suite for every scene and method, each with a folder of its own; the suite itself where it has one of each."""
    suites = []
    scenes: Mapping[str, Path | None] = suite.scenes or {"": suite.data}
    for scene, data in scenes.items():
        for method, args in (suite.methods or {"": ()}).items():
            output, name = suite.output / scene / method, ", ".join(filter(None, (suite.name, scene, method)))
            own = {"data": data, "output": output, "name": name, "train": [*suite.train, *args]}
            single: dict[str, Any] = {"scenes": {}, "methods": {}, "method": method or suite.method, **own}
            suites.append(SuitePart(scene, method, replace(suite, **single)))
    return suites


def run_suite(suite: Suite, console: Console, *, workers: int | None = None) -> Path:
    """Does what is not done yet, and compares.

    Under torchrun each process does its share of the trainings and conversions, and the first one compares; they need
    to see the same files.

    Args:
        suite: what to do.
        console: for progress.
        workers: commands side by side in this process; the suite's own number by default.

    Returns:
        The folder of the report.

    Raises:
        DataError: the data set is not there.
        RunError: a step failed; the message names its log.
    """
    pool = WorkerPool.of_environment(workers or suite.workers, suite.threads)
    logs = suite.output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    data = _data(suite, logs, console, pool)
    jobs = [*(_training(suite, name, data) for name in suite.runs), *(_conversion(suite, n) for n in suite.distilled)]
    run_jobs(jobs, pool, console)
    report = suite.output / "report"
    if pool.index == 0:
        with working(console, "rendering and timing all variants") as at:
            wait_for([job.last for job in jobs])
            keep_older(report, console)
            command, log = _evaluation(suite, report), logs / "evaluate.log"
            run_command(command, log, threads=suite.threads, on_progress=lambda _, words: at(words))
        if suite.page and not page_of(suite).exists():
            with working(console, "making the web page"):
                run_command(_page(suite), logs / "page.log", threads=suite.threads)
    return report


def _data(suite: Suite, logs: Path, console: Console, pool: WorkerPool) -> Path:
    if suite.data is not None:
        if not suite.data.exists():
            raise DataError(f"the data set {suite.data} of suite {suite.name!r} is not there")
        return suite.data
    data = suite.output / "scene"
    if pool.index == 0 and not data.exists():
        with working(console, "generating the scene"):
            command = [*tool("eugen-data"), suite.generator, "--output", str(data), *suite.scene]
            run_command(command, logs / "scene.log")
    wait_for([data])
    return data


def _training(suite: Suite, name: str, data: Path) -> Job:
    output = ["--output-dir", str(suite.output / "runs"), "--experiment-name", name, "--timestamp", "run"]
    settings = [*output, "--vis", "tensorboard", *suite.train, *suite.runs[name], *suite.dataparser]
    config = config_of(suite, name)
    return Job(
        title=f"train {name}",
        command=(*tool("ns-train"), suite.method, *settings, "--data", str(data)),
        log=suite.output / "logs" / f"train-{name}.log",
        result=config,
        record=config.with_name("training.json"),
    )


def _conversion(suite: Suite, name: str) -> Job:
    teacher, *args = suite.distilled[name]
    output = ["--output-dir", str(suite.output / "runs"), "--experiment-name", name, "--timestamp", "run"]
    source = config_of(suite, teacher)
    return Job(
        title=f"distil {name}",
        command=(*tool("eugen-distill"), "--load-config", str(source), *output, *args),
        log=suite.output / "logs" / f"distil-{name}.log",
        result=config_of(suite, name),
        needs=source.with_name("training.json"),
    )


def _evaluation(suite: Suite, report: Path) -> list[str]:
    names = [*suite.runs, *suite.distilled]
    command, *words = EVALUATORS[suite.evaluator]
    arguments = ["--load-config", *(str(config_of(suite, name)) for name in names), "--names", *names]
    if suite.published:
        path = suite.output / "published.json"
        write_texts({path: json.dumps(list(suite.published))}, overwrite=True)
        arguments += ["--published", str(path)]
    return [*tool(command), *words, *arguments, "--output", str(report), *suite.evaluate]


def _page(suite: Suite) -> list[str]:
    configs = (str(config_of(suite, name)) for name in suite.page)
    title = ["--title", suite.name, "--names", *suite.page]
    return [*tool("eugen-web"), *configs, "--output", str(page_of(suite)), *title]


def keep_older(report: Path, console: Console) -> None:
    """Moves an older report out of the way: no result is overwritten. What a killed process left of one goes."""
    recover(report)
    if not report.exists() or (report.is_dir() and not any(report.iterdir())):
        return
    number = 1
    while (kept := report.with_name(f"report-{number}")).exists():
        number += 1
    report.rename(kept)
    console.print(f"the report of the last time is kept as {kept}", soft_wrap=True, markup=False)


def page_of(suite: Suite) -> Path:
    """Where the web page of a suite's runs lies, where it has one."""
    return suite.output / "page.html"


def config_of(suite: Suite, name: str) -> Path:
    """Where the `config.yml` of one run lies."""
    method = suite.method if name in suite.runs else CONVERTED.get(suite.method, suite.method)
    return suite.output / "runs" / name / method / "run" / "config.yml"
