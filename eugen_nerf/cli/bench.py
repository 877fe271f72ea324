"""eugen-bench: train, convert and compare what a suite names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from eugen_nerf.cli.common import print_lines, run_cli
from eugen_nerf.cli.suite import EVALUATORS, read_suite, run_suite

_TITLES = (" views of ", "errors against", "held-out depth")
"""What the first table of an evaluation begins with."""


@dataclass
class Bench:
    """Run a suite: train its variants, distil, compare, write one report. What is done already is not done again."""

    suite: tyro.conf.Positional[Path]
    """A YAML file, such as those in configs/."""

    def run(self) -> None:
        """Runs the suite, prints the comparison and where to look further."""
        console = Console()
        suite = read_suite(self.suite)
        report = run_suite(suite, console)
        log = (suite.output / "logs" / "evaluate.log").read_text(encoding="utf8")
        lines = log.splitlines()
        first = next((i for i, line in enumerate(lines) if any(text in line for text in _TITLES)), 0)
        console.print("\n".join(lines[first:]), highlight=False, markup=False, soft_wrap=True)
        for row in suite.published:
            console.print(f"published: {row['text']} ({row['source']})", markup=False, soft_wrap=True)
        runs, method = suite.output / "runs", suite.method
        name = next(iter(suite.distilled or suite.runs))
        viewer = "ns-viewer --viewer.websocket-host 127.0.0.1 --load-config"
        further = {
            "report": report / "report.html",
            "look at a run": f"{viewer} {runs / name / method / 'run' / 'config.yml'}",
            "compare again": f"{' '.join(EVALUATORS[suite.evaluator])} --load-config {runs}/*/{method}/run/config.yml",
        }
        print_lines(console, further)


def main() -> None:
    """Entry point of eugen-bench."""
    run_cli(lambda: tyro.cli(Bench, prog="eugen-bench").run())


if __name__ == "__main__":
    main()
