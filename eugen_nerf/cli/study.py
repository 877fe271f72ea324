"""Suites of studies: every case and seed has a file of its own, so that they resume and run side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from eugen_nerf.cli.suite import keep_older
from eugen_nerf.cli.support.progress import stages
from eugen_nerf.cli.support.runner import WorkerPool, wait_for
from eugen_nerf.core.checks.names import shown
from eugen_nerf.core.checks.plain_data import from_plain_data
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import SEED, THREADS, Range
from eugen_nerf.evaluation.statistics.published import check_published
from eugen_nerf.methods.runs.strict_yaml import YamlFileError, plain_yaml
from eugen_nerf.surfaces.files import new_file

if TYPE_CHECKING:
    from eugen_nerf.studies.study_run import Case, Study


@dataclass(frozen=True)
class StudySuite:
    """What to run; the keys of a YAML file that has `study`."""

    name: str
    """Title of the suite."""
    output: Path
    """Folder of results and the report."""
    study: str
    """Which experiment, see `studies.register`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its settings."""
    seeds: Sequence[Annotated[int, SEED]] = (0,)
    """Every case is run once for each."""
    workers: Annotated[int, Range(1, 1024)] = 2
    """Cases side by side."""
    threads: Annotated[int | None, THREADS] = 1
    """Processor threads of each, whatever the number of workers."""
    published: Sequence[Mapping[str, str]] = ()
    """Published results, as in other suites."""


def is_study(path: Path) -> bool:
    """Whether a suite's file describes a study; what cannot be read is none."""
    try:
        content = plain_yaml(path)
    except YamlFileError:
        return False
    return isinstance(content, dict) and "study" in content


def read_study(path: Path) -> tuple[StudySuite, Study]:
    """Reads a suite of a study.

    Raises:
        ConfigError: no such file, no YAML, or keys that are missing or unknown.
    """
    where = f"{path} is no suite"
    try:
        suite = from_plain_data(StudySuite, plain_yaml(path), where)
    except YamlFileError as error:
        raise ConfigError(f"{where}: {error}") from error
    check_published(suite.published, str(path))
    if not suite.seeds or len(set(suite.seeds)) < len(suite.seeds):
        raise ConfigError(f"{path}: seeds is {shown(suite.seeds)}; give at least one, each once")
    from eugen_nerf.studies.register import make_study

    return suite, make_study(suite.study, suite.settings, f"{where}: settings")


def run_study(path: Path, console: Console, *, workers: int | None = None) -> Path | None:
    """Runs what is not done yet, and writes the report.

    Args:
        path: the suite's file.
        console: for progress and tables.
        workers: cases side by side; the suite's own number by default.

    Returns:
        The page; None in processes of torchrun but the first.

    Raises:
        ConfigError: see `read_study`.
        EugenError: a case failed.
    """
    from eugen_nerf.evaluation.reports.study_report import study_rows, write_study

    suite, study = read_study(path)
    pool = WorkerPool.of_environment(workers or suite.workers, suite.threads)
    (suite.output / "results").mkdir(parents=True, exist_ok=True)
    cases = study.cases()
    pairs = [(number, seed) for number in range(len(cases)) for seed in suite.seeds]
    missing = [pair for pair in pool.mine(pairs) if not _result(suite, study, cases[pair[0]], pair[1]).exists()]
    with ProcessPoolExecutor(pool.workers, get_context("spawn"), _set_threads, (suite.threads,)) as executor:
        running = [executor.submit(_run_case, path, *pair) for pair in missing]
        try:
            with stages(console, [suite.name]) as progress:
                for number, done in enumerate(as_completed(running), 1):
                    done.result()
                    progress(suite.name, 100 * number / len(running))
        except BaseException:  # a case that failed, or Ctrl-C: what is done stays
            executor.shutdown(cancel_futures=True)
            raise
    if pool.index:
        return None
    wait_for([_result(suite, study, cases[number], seed) for number, seed in pairs])
    results = [
        {seed: json.loads(_result(suite, study, case, seed).read_text(encoding="utf8")) for seed in suite.seeds}
        for case in cases
    ]
    report = suite.output / "report"
    keep_older(report, console)
    return write_study(suite.name, study, study_rows(cases, results), report, console, suite.published)


def _result(suite: StudySuite, study: Study, case: Case, seed: int) -> Path:
    return suite.output / "results" / f"{study.key(case, seed)}.json"


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _run_case(path: Path, number: int, seed: int) -> None:
    """One case in a process of its own; its result is whole or absent."""
    suite, study = read_study(path)
    case = study.cases()[number]
    result = study.run(case, seed)
    with new_file(_result(suite, study, case, seed), overwrite=True) as partial:
        partial.write_text(json.dumps(result), encoding="utf8")
