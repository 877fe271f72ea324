"""A suite: runs trained and converted on one data set, then compared; described by a YAML file of plain data.

Every step is a command of nerfstudio's or of ours, with its own log; a step whose result is there is not done again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from eugen_nerf.core.errors import ConfigError, DataError, RunError

EVALUATORS = {"images": ("eugen-eval",), "sdf": ("eugen-sdf", "evaluate")}
_RUNNING: set[subprocess.Popen[bytes]] = set()
_PERCENT = re.compile(r"\((\d+(?:\.\d+)?)%\)")


@dataclass(frozen=True)
class Suite:
    """What to run; the keys of the YAML file."""

    name: str
    """Title of the suite."""
    output: Path
    """Folder for data (where generated), runs, logs and the report."""
    method: str
    """nerfstudio method of the trained runs."""
    runs: Mapping[str, Sequence[str]]
    """Arguments of `ns-train` by name of the run; the first is what the others are compared with."""
    data: Path | None = None
    """A data set that `dataparser` reads; None generates a scene."""
    scene: Sequence[str] = ()
    """Arguments of `eugen-data`'s generator, where a scene is generated."""
    generator: str = "scene"
    """Subcommand of `eugen-data` that generates it, such as scene or dynamic."""
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
    """Runs trained side by side; processor cores are shared out evenly."""
    published: Sequence[Mapping[str, Any]] = ()
    """Published rows to print beside ours."""


def read_suite(path: Path) -> Suite:
    """Reads a suite.

    Raises:
        ConfigError: no such file, no YAML, or keys that are missing or unknown.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf8"))
        suite = Suite(**content)
        distilled = _distilled_with_seeds(suite)
        suite = replace(
            suite, runs=_with_seeds(suite.runs, suite.seeds, suite.seed_args), distilled=distilled, seeds=()
        )
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise ConfigError(f"{path} is no suite: {str(error).splitlines()[0]}") from error
    strangers = [name for name, (teacher, *_) in suite.distilled.items() if teacher not in suite.runs]
    if strangers:
        raise ConfigError(f"{path}: {strangers[0]!r} has no teacher among the runs {', '.join(suite.runs)}")
    if suite.evaluator not in EVALUATORS:
        raise ConfigError(f"{path}: evaluator {suite.evaluator!r} is unknown; choose one of {', '.join(EVALUATORS)}")
    data = None if suite.data is None else Path(suite.data)
    return Suite(**{**suite.__dict__, "output": Path(suite.output), "data": data})


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
    found: dict[str, Sequence[str]] = {}
    for name, (teacher, *args) in suite.distilled.items():
        if not suite.seeds or teacher not in suite.runs:
            found[name] = [teacher, *args]
            continue
        for seed in suite.seeds:
            own = (argument.format(seed=seed) for argument in args)
            found[f"{name}-s{seed}"] = [f"{teacher}-s{seed}", *own]
    return found


def run_suite(suite: Suite, console: Console) -> Path:
    """Does what is not done yet, and compares.

    Returns:
        The folder of the report.

    Raises:
        DataError: the data set is not there.
        RunError: a step failed; the message names its log.
    """
    logs = suite.output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    data = _data(suite, logs, console)
    threads = max(1, (os.cpu_count() or 1) // max(1, min(suite.workers, len(suite.runs))))
    with _progress(console) as progress:
        tasks = {name: progress.add_task(f"train {name}", total=100) for name in suite.runs}

        def train(name: str) -> None:
            if not _config(suite, name).exists() or not _record(suite, name).exists():
                command = [*_tool("ns-train"), suite.method, *_train_args(suite, name), *suite.dataparser]
                start = time.perf_counter()
                _run(
                    [*command, "--data", str(data)],
                    logs / f"train-{name}.log",
                    threads=threads,
                    on_percent=lambda value: progress.update(tasks[name], completed=value),
                )
                _record(suite, name).write_text(json.dumps({"seconds": time.perf_counter() - start}), encoding="utf8")
            progress.update(tasks[name], completed=100)

        with ThreadPoolExecutor(suite.workers) as pool:
            try:
                for done in as_completed([pool.submit(train, name) for name in suite.runs]):
                    done.result()
            except BaseException:  # a run that failed, or Ctrl-C: the report will not come, so stop the others
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(_RUNNING):
                    process.terminate()
                raise
        for name, (teacher, *args) in suite.distilled.items():
            task = progress.add_task(f"distil {name}", total=100)
            if not _config(suite, name).exists():
                target = ["--output-dir", str(suite.output / "runs"), "--experiment-name", name, "--timestamp", "run"]
                command = [*_tool("eugen-distill"), "--load-config", str(_config(suite, teacher)), *target, *args]
                _run(command, logs / f"distil-{name}.log")
            progress.update(task, completed=100)
    report = suite.output / "report"
    names = [*suite.runs, *suite.distilled]
    configs = [str(_config(suite, name)) for name in names]
    out = ["--output", str(report), "--overwrite", *suite.evaluate]
    with console.status("rendering and timing all variants"):
        log = logs / "evaluate.log"
        tool, *command = EVALUATORS[suite.evaluator]
        _run([*_tool(tool), *command, "--load-config", *configs, "--names", *names, *out], log)
    return report


def _data(suite: Suite, logs: Path, console: Console) -> Path:
    if suite.data is not None:
        if not suite.data.exists():
            raise DataError(f"the data set {suite.data} of suite {suite.name!r} is not there")
        return suite.data
    data = suite.output / "scene"
    if not data.exists():
        with console.status("generating the scene"):
            command = [*_tool("eugen-data"), suite.generator, "--output", str(data), *suite.scene]
            _run(command, logs / "scene.log")
    return data


def _config(suite: Suite, name: str) -> Path:
    return suite.output / "runs" / name / suite.method / "run" / "config.yml"


def _record(suite: Suite, name: str) -> Path:
    return _config(suite, name).with_name("training.json")


def _train_args(suite: Suite, name: str) -> list[str]:
    place = ["--output-dir", str(suite.output / "runs"), "--experiment-name", name, "--timestamp", "run"]
    return [*place, "--vis", "tensorboard", *suite.train, *suite.runs[name]]


def _tool(name: str) -> list[str]:
    """The command from this environment, whether or not the environment is activated."""
    return [str(Path(sys.executable).with_name(name))]


def _run(
    command: Sequence[str], log: Path, *, threads: int | None = None, on_percent: Any = lambda value: None
) -> None:
    environment = {**os.environ, "COLUMNS": "160"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    with log.open("w", encoding="utf8") as file:
        file.write(" ".join(command) + "\n")
        file.flush()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        _RUNNING.add(process)
        try:
            with _watching(log, on_percent):
                code = process.wait()
        except BaseException:  # Ctrl-C: leave no process behind
            process.terminate()
            raise
        finally:
            _RUNNING.discard(process)
    if code != 0:
        lines = [line for line in log.read_text(encoding="utf8", errors="replace").splitlines() if line.strip()]
        raise RunError(f"{Path(command[0]).name} failed: {lines[-1].strip()[:300]} (all of its output: {log})")


@contextmanager
def _watching(log: Path, on_percent: Any) -> Iterator[None]:
    """Reports the last percentage in a growing log."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            found = _PERCENT.findall(log.read_text(encoding="utf8", errors="replace")[-4000:])
            if found:
                on_percent(float(found[-1]))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
