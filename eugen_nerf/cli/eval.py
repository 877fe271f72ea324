"""``eugen-eval``: compare runs of one scene by quality, speed and size."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from eugen_nerf.cli.support.common import run_cli
from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.checks.names import NAME
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.ranges import COUNT_OR_NONE, THREADS
from eugen_nerf.evaluation.output_paths import check_output
from eugen_nerf.evaluation.protocol import Inference, Protocol, Timing
from eugen_nerf.methods.runs.run_paths import check_config_paths, check_data_path


@dataclass
class EvalCommand:
    """Compare trained runs (ours or stock nerfstudio's) on their test views.

    Renders, scores and times all runs in one process, prints a table, and writes report.json and report.html.
    """

    GROUPS: ClassVar = {
        "report": ("overwrite", "save_images", "verify", "published", "shown_views"),
        "machine": ("device", "threads", "trust_config"),
    }

    load_config: tuple[Path, ...] = ()
    """The config.yml of each run."""
    names: Annotated[tuple[str, ...], NAME] = ()
    """What to call the runs, in the same order (default: their methods)."""
    baseline: str | None = None
    """The run that speeds are compared with (default: the first)."""
    output: Path = Path("outputs/evaluation")
    """Folder of report.json and report.html."""
    overwrite: bool = False
    """Replace an older report in that folder."""
    save_images: bool = True
    """Keep every scored image and its photograph as PNG beside the report, for --verify."""
    verify: Path | None = None
    """A report.json to check instead of measuring: hashes, PSNR and SSIM of the images beside it, computed anew."""
    data: Path | None = None
    """Read the scene from here instead of where the runs' configs say."""
    trust_config: bool = False
    """Read config.yml as nerfstudio does, which runs code that it names: for other plugins' runs that you trust."""
    reduced: tuple[str, ...] = ()
    """Runs to compare once more in less precise arithmetic, as RUN:bfloat16 or RUN:int8 (weights and products)."""
    fast: Annotated[tuple[str, ...], NAME] = ()
    """Runs to compare once more by the fast renderer that eugen-view shows them by, as rows of their own."""
    shares: Annotated[tuple[str, ...], NAME] = ()
    """Runs to compare once more at the first features of every hidden layer, as RUN:0.5, as rows of their own: for runs
    trained with `--pipeline.model.network.shares` or made by `eugen-distill --elastic`."""
    published: Path | None = None
    """A JSON file of published results to show beside: a list of texts and their sources."""
    device: str | None = None
    """Device for all runs, such as cpu or cuda (default: the GPU where there is one)."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads of torch (default: torch's own choice)."""
    shown_views: Annotated[int, tyro.conf.arg(metavar="INT"), COUNT_OR_NONE] = 4
    """Views shown in report.html."""
    scoring: Protocol = field(default_factory=Protocol)
    """What is scored."""
    speed: Timing = field(default_factory=Timing)
    """What is timed."""
    inference: Inference = field(default_factory=Inference)
    """How networks and rendering are run."""

    def run(self) -> None:
        """Check the settings, measure, print, write."""
        if self.verify is not None:
            self._verify(self.verify)
            return
        if not self.load_config:
            raise ConfigError("give the config.yml of at least one run with --load-config")
        check_config_paths(self.load_config)
        check_data_path(self.data)
        check_output(self.output, overwrite=self.overwrite)
        self._measure()

    def _measure(self) -> None:
        import torch
        from rich.console import Console

        from eugen_nerf.evaluation.compare import evaluate
        from eugen_nerf.evaluation.reports.comparison_report import print_table, write_report
        from eugen_nerf.evaluation.statistics.claims import groups_of, judged
        from eugen_nerf.evaluation.statistics.published import read_published

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        published = [] if self.published is None else read_published(self.published)
        comparison = evaluate(
            self.load_config,
            names=self.names,
            baseline=self.baseline,
            protocol=self.scoring,
            timing=self.speed,
            device=self.device,
            data=self.data,
            trust_config=self.trust_config,
            reduced=self.reduced,
            fast=self.fast,
            shares=self.shares,
            inference=self.inference,
        )
        comparison.published = judged(published, groups_of(comparison.rows))
        console = Console()
        print_table(comparison, console)
        settings = {"overwrite": self.overwrite, "max_views": self.shown_views, "images": self.save_images}
        for path in write_report(comparison, self.output, **settings):  # type: ignore[arg-type]
            console.print(f"wrote {path}", soft_wrap=True, highlight=False, markup=False)

    def _verify(self, report: Path) -> None:
        if self.load_config:
            raise ConfigError("--verify checks a report that is there: leave --load-config out")
        if not report.is_file():
            raise RunError(f"no report at {report}: give the report.json that eugen-eval wrote")
        from rich.console import Console

        from eugen_nerf.evaluation.reports.scored_images import verify

        findings = verify(report)
        for finding in findings:
            Console().print(finding, soft_wrap=True, highlight=False, markup=False)
        if findings:
            raise RunError(f"{report} does not fit the images beside it, see above: {len(findings)} finding(s)")
        Console().print(f"{report}: every hash, PSNR and SSIM is that of the images beside it", soft_wrap=True)


def main() -> None:
    """Entry point of the command."""
    run_cli(lambda: parse(EvalCommand, "eugen-eval").run())


if __name__ == "__main__":
    main()
