"""eugen-bench: train, convert and compare what suites name."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from eugen_nerf.cli.roofline import RooflineCommand
from eugen_nerf.cli.speed import SpeedCommand
from eugen_nerf.cli.study import is_study, read_study, run_study
from eugen_nerf.cli.suite import config_of, page_of, parts, run_suite
from eugen_nerf.cli.suite_file import EVALUATORS, Suite, read_suite
from eugen_nerf.cli.support.common import installed, print_lines, run_cli
from eugen_nerf.cli.support.options import parse
from eugen_nerf.cli.support.runner import WorkerPool
from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import Range

_TITLES = (" views of ", "errors against", "held-out depth")
"""What the first table of an evaluation begins with."""


@dataclass
class Bench:
    """Run suites: train their variants, distil, compare, write one report each. What is done is not done again.

    Several machines share the work under torchrun, where they see the same files:
    `torchrun --nnodes 2 --nproc-per-node 1 ... -m eugen_nerf.cli.bench SUITE`. `eugen-bench speed` measures networks
    alone, without any training, and `eugen-bench roofline` predicts what steps take on a graphics card: see their
    `--help`.
    """

    suites: tyro.conf.Positional[tuple[Path, ...]]
    """YAML files, such as those in configs/."""
    workers: Annotated[int | None, Range(1, 1024)] = None
    """Trainings and conversions side by side (default: as each suite says). Results do not depend on it."""

    def run(self) -> None:
        """Runs the suites, prints the comparisons and where to look further."""
        if not self.suites:
            raise ConfigError("give at least one suite, such as configs/demo.yml")
        first = WorkerPool.of_environment(1, None).index == 0
        console = Console(quiet=not first)
        for path in self.suites:  # a mistake in the last one shows before the first runs
            described = read_study(path)[0] if is_study(path) else read_suite(path)
            check_place(described.output, "folder", f"output in {path}")
        for path in self.suites:
            if is_study(path):
                page = run_study(path, console, workers=self.workers)
                print_lines(console, {"report": page})
                continue
            suite = read_suite(path)
            suite_parts = parts(suite)
            reports = [run_suite(part.suite, console, workers=self.workers) for part in suite_parts]
            if not first:
                continue
            for part, report in zip(suite_parts, reports, strict=True):
                _print_part(part.suite, report, console)
            if len(suite_parts) > 1:
                from eugen_nerf.evaluation.reports.scene_means import write_summary

                read = [(part.scene, part.method, report) for part, report in zip(suite_parts, reports, strict=True)]
                print_lines(console, {"all scenes": write_summary(suite.name, read, suite.output, console)})


def _print_part(suite: Suite, report: Path, console: Console) -> None:
    lines = (suite.output / "logs" / "evaluate.log").read_text(encoding="utf8").splitlines()
    first = next((i for i, line in enumerate(lines) if any(text in line for text in _TITLES)), 0)
    console.print("\n".join(lines[first:]), highlight=False, markup=False, soft_wrap=True)
    for row in suite.published:
        console.print(f"published: {row['text']} ({row['source']})", markup=False, soft_wrap=True)
    configs = {name: str(config_of(suite, name)) for name in (*suite.runs, *suite.distilled)}
    shown = [*list(suite.runs)[:2], *list(suite.distilled)[:1]]
    paths = " ".join(configs[name] for name in shown)
    evaluator, *words = EVALUATORS[suite.evaluator]
    further: dict[str, object] = {
        "report": report / "report.html",
        **({"web page": page_of(suite)} if suite.page else {}),
        "compare again": " ".join([installed(evaluator), *words, "--load-config", *configs.values()]),
        "look at the result": f"{installed('eugen-view')} --load-config {paths} --names {' '.join(shown)}",
    }
    print_lines(console, further)


def main() -> None:
    """Entry point of eugen-bench; what follows the words speed and roofline is theirs, all else are suites."""
    others = {"speed": SpeedCommand, "roofline": RooflineCommand}
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word in others:
        run_cli(lambda: parse(others[word], f"eugen-bench {word}", sys.argv[2:]).run())
    else:
        run_cli(lambda: parse(Bench, "eugen-bench").run())


if __name__ == "__main__":
    main()
