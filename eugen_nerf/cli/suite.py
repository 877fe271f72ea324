"""A suite: runs trained and converted on one data set, then compared; described by a YAML file of plain data.

Every step is a command of nerfstudio's or of ours, with its own log; a step whose result is there is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from eugen_nerf.cli.support.progress import working
from eugen_nerf.cli.support.runner import Job, WorkerPool, run_command, run_jobs, tool, wait_for
from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.evaluation.statistics.published import check_published

CONVERTED = {"vanilla-nerf": "eugen-nerf", "dnerf": "eugen-dnerf"}
"""Stock methods whose conversion is a run of another method; all others stay what they are."""
EVALUATORS = {"images": ("eugen-eval",), "sdf": ("eugen-sdf", "evaluate")}


@dataclass(frozen=True)
class Suite:
    """What to run; the keys of the YAML file."""

    name: str
    """Title of the suite."""
    output: Path
    """Folder for data (where generated), runs, logs and the report."""
    runs: Mapping[str, Sequence[str]]
    """Arguments of `ns-train` by name of the run; the first is what the others are compared with."""
    method: str = ""
    """nerfstudio method of the trained runs."""
    methods: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Instead of one method, several: further arguments of `ns-train` by method."""
    data: Path | None = None
    """A data set that `dataparser` reads; None generates a scene."""
    scenes: Mapping[str, Path] = field(default_factory=dict)
    """Instead of one data set, several by name. With scenes or methods, each pair has a report of its own, and one more
    has the means over the scenes."""
    scene: Sequence[str] = ()
    """Arguments of `eugen-data`'s generator, where a scene is generated."""
    generator: str = "scene"
    """Subcommand of `eugen-data` that generates it, such as scene or dynamic."""
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Every run is trained with each, as NAME-SETTING: further arguments of `ns-train` by name, such as rates."""
    seeds: Sequence[int] = ()
    """Every run is trained once for each, as NAME-s0, NAME-s1, ...; empty trains each once, under its own name."""
    seed_args: Sequence[str] = ("--machine.seed={seed}",)
    """Arguments of `ns-train` that set a seed."""
    train: Sequence[str] = ()
    """Arguments of `ns-train` common to all runs."""
    dataparser: Sequence[str] = ("blender-data",)
    """The dataparser's sub-command and arguments."""
    distilled: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Arguments of `eugen-distill` by name; the first is the name of the teacher's run. With seeds, a teacher's name as
    in `runs` stands for its run of every seed (NAME-s0, ...), and `{seed}` in the other arguments for the seed; a run
    of one seed is named in full."""
    evaluator: str = "images"
    """What compares the runs: images (`eugen-eval`) or sdf (`eugen-sdf evaluate`)."""
    evaluate: Sequence[str] = ()
    """Its arguments."""
    workers: int = 2
    """Trainings and conversions side by side."""
    threads: int | None = 1
    """Processor threads of every step, whatever the number of workers, because sums depend on it: results are the same
    for any number of workers. None leaves it to torch."""
    published: Sequence[Mapping[str, str]] = ()
    """Published results to print beside ours: `text`, `source`, and perhaps `beside` (the name of a run of ours) and
    `differs` (what makes them hard to compare)."""


def read_suite(path: Path) -> Suite:
    """Reads a suite.

    Raises:
        ConfigError: no such file, no YAML, or keys that are missing or unknown.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf8"))
        suite = Suite(**content)
        suite = replace(suite, runs=_with_settings(suite.runs, suite.settings), settings={})
        distilled = _distilled_with_seeds(suite)
        suite = replace(
            suite, runs=_with_seeds(suite.runs, suite.seeds, suite.seed_args), distilled=distilled, seeds=()
        )
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise ConfigError(f"{path} is no suite: {str(error).splitlines()[0]}") from error
    check_published(suite.published, str(path))
    without_teacher = [name for name, (teacher, *_) in suite.distilled.items() if teacher not in suite.runs]
    if without_teacher:
        raise ConfigError(f"{path}: {without_teacher[0]!r} has no teacher among the runs {', '.join(suite.runs)}")
    if suite.evaluator not in EVALUATORS:
        raise ConfigError(f"{path}: evaluator {suite.evaluator!r} is unknown; choose one of {', '.join(EVALUATORS)}")
    if bool(suite.method) == bool(suite.methods):
        raise ConfigError(f"{path}: give either method or methods")
    if suite.scenes and suite.data is not None:
        raise ConfigError(f"{path}: give either data or scenes")
    data = None if suite.data is None else Path(suite.data)
    scenes = {name: Path(path) for name, path in suite.scenes.items()}
    return replace(suite, output=Path(suite.output), data=data, scenes=scenes)


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


def _with_settings(
    runs: Mapping[str, Sequence[str]], settings: Mapping[str, Sequence[str]]
) -> Mapping[str, Sequence[str]]:
    """Each run with every setting, whose arguments come last; the runs themselves without settings."""
    if not settings:
        return runs
    return {f"{name}-{setting}": [*args, *more] for name, args in runs.items() for setting, more in settings.items()}


def _with_seeds(
    runs: Mapping[str, Sequence[str]], seeds: Sequence[int], seed_args: Sequence[str]
) -> Mapping[str, Sequence[str]]:
    """Each run once for every seed, all runs of a seed together; the runs themselves without seeds."""
    if not seeds:
        return runs
    return {
        f"{name}-s{seed}": [*args, *(argument.format(seed=seed) for argument in seed_args)]
        for seed in seeds
        for name, args in runs.items()
    }


def _distilled_with_seeds(suite: Suite) -> Mapping[str, Sequence[str]]:
    """Each conversion once for every seed of its teacher, where it names the teacher without one."""
    distilled: dict[str, Sequence[str]] = {}
    for name, (teacher, *args) in suite.distilled.items():
        if not suite.seeds or teacher not in suite.runs:
            distilled[name] = [teacher, *args]
            continue
        for seed in suite.seeds:
            own = (argument.format(seed=seed) for argument in args)
            distilled[f"{name}-s{seed}"] = [f"{teacher}-s{seed}", *own]
    return distilled


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
        path.write_text(json.dumps(list(suite.published)), encoding="utf8")
        arguments += ["--published", str(path)]
    return [*tool(command), *words, *arguments, "--output", str(report), *suite.evaluate]


def keep_older(report: Path, console: Console) -> None:
    """Moves an older report out of the way: no result is overwritten."""
    if not report.exists():
        return
    number = 1
    while (kept := report.with_name(f"report-{number}")).exists():
        number += 1
    report.rename(kept)
    console.print(f"the report of the last time is kept as {kept}", soft_wrap=True, markup=False)


def config_of(suite: Suite, name: str) -> Path:
    """Where the `config.yml` of one run lies."""
    method = suite.method if name in suite.runs else CONVERTED.get(suite.method, suite.method)
    return suite.output / "runs" / name / method / "run" / "config.yml"
