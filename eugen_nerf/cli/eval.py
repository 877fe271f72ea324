"""``eugen-eval``: compare runs of one scene by quality, speed and size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from eugen_nerf.cli.support.common import run_cli
from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.evaluation.output_paths import check_output
from eugen_nerf.methods.runs.run_paths import check_config_paths, check_data_path


@dataclass
class EvalCommand:
    """Compare trained runs (ours or stock nerfstudio's) on their test views.

    Renders, scores and times all runs in one process, prints a table, and writes report.json and report.html.
    """

    GROUPS: ClassVar = {
        "scoring": ("split", "views", "lpips_net"),
        "speed": ("repeats", "warmup", "queries", "chunk_size", "timed_views", "split_repeats", "train_iterations"),
        "inference": (
            "plan_backend",
            "plan_dtype",
            "plan_drop_norm",
            "reduced",
            "auxiliary_outputs",
            "early_stop",
            "skip_empty",
        ),
        "report": ("overwrite", "save_images", "verify", "published", "frames_over_time", "shown_views"),
        "machine": ("device", "threads", "seed", "trust_config"),
    }

    load_config: tuple[Path, ...] = ()
    """The config.yml of each run."""
    names: tuple[str, ...] = ()
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
    plan_backend: Literal["none", "eager", "compile", "triton"] = "none"
    """Run every network by an inference plan; the report states how far its outputs are from float32."""
    plan_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the plans' weights, features and products."""
    plan_drop_norm: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """Let plans take the norm of a layer's input for constant where outputs change by less than this share of the
    largest, such as 0.001."""
    auxiliary_outputs: bool = True
    """Render outputs that no score needs as well, such as the coarse field's colours."""
    early_stop: Annotated[float, tyro.conf.arg(metavar="T")] = 0.0
    """End rays where less than this share of light comes through, such as 0.003: no channel changes by more."""
    skip_empty: Annotated[int, tyro.conf.arg(metavar="CELLS")] = 0
    """Skip space where the trained density is zero, by a grid of so many cells a side, such as 96; 0 for none."""
    published: Path | None = None
    """A JSON file of published results to show beside: a list of texts and their sources."""
    split: Literal["test", "val"] = "test"
    """Split whose views are scored."""
    views: int | None = None
    """Score at most this many views, spread evenly over the split (default: all)."""
    lpips_net: Literal["alex", "vgg", "squeeze"] = "alex"
    """Network of LPIPS; its weights must be on disk, or LPIPS is left out."""
    repeats: int = 5
    """Timed rounds; in each, the runs take turns."""
    warmup: int = 1
    """Untimed rounds before."""
    queries: int | None = None
    """Points a field is asked for in one timed call (default: 32768 on a CPU, 1048576 on a GPU)."""
    chunk_size: int | None = None
    """Points evaluated at once, the same for all runs (default: 4096 on a CPU, 262144 on a GPU)."""
    timed_views: int = 1
    """Views rendered in one timed call."""
    split_repeats: int = 3
    """Rounds that take a render's time apart: encoding, MLP, sampling, compositing, other."""
    train_iterations: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Training iterations to time as well, in memory, after everything else; 0 for none."""
    seed: int = 0
    """Of the random points, and of the pixels trained on."""
    device: str | None = None
    """Device for all runs, such as cpu or cuda (default: the GPU where there is one)."""
    threads: int | None = None
    """CPU threads of torch (default: torch's own choice)."""
    frames_over_time: Annotated[int, tyro.conf.arg(metavar="INT")] = 6
    """Frames of the first view in report.html where the data have times, from time 0 to 1; 0 for none."""
    shown_views: Annotated[int, tyro.conf.arg(metavar="INT")] = 4
    """Views shown in report.html."""

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
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"--threads must be at least 1, not {self.threads}")
        self._measure()

    def _measure(self) -> None:
        import torch
        from rich.console import Console

        from eugen_nerf.evaluation.compare import evaluate
        from eugen_nerf.evaluation.costs.inference_modes import Inference
        from eugen_nerf.evaluation.protocol import Protocol, Timing
        from eugen_nerf.evaluation.reports.comparison_report import print_table, write_report
        from eugen_nerf.evaluation.statistics.claims import groups_of, judged
        from eugen_nerf.evaluation.statistics.published import read_published

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        protocol = Protocol(
            split=self.split, limit=self.views, lpips_net=self.lpips_net, frames_over_time=self.frames_over_time
        )
        cuda = (self.device or ("cuda" if torch.cuda.is_available() else "cpu")).startswith("cuda")
        queries = self.queries if self.queries is not None else 1 << (20 if cuda else 15)
        chunk_size = self.chunk_size if self.chunk_size is not None else 1 << (18 if cuda else 12)
        timing = Timing(
            warmup=self.warmup,
            repeats=self.repeats,
            num_queries=queries,
            chunk_size=chunk_size,
            num_views=self.timed_views,
            seed=self.seed,
            split_repeats=self.split_repeats,
            train_iterations=self.train_iterations,
        )
        published = [] if self.published is None else read_published(self.published)
        comparison = evaluate(
            self.load_config,
            names=self.names or None,
            baseline=self.baseline,
            protocol=protocol,
            timing=timing,
            device=self.device,
            data=self.data,
            trust_config=self.trust_config,
            reduced=self.reduced,
            inference=Inference(
                self.plan_backend,
                self.plan_dtype,
                self.auxiliary_outputs,
                self.early_stop,
                self.skip_empty,
                self.plan_drop_norm,
            ),
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
            raise RunError(f"{report} does not fit the pictures beside it, see above: {len(findings)} finding(s)")
        Console().print(f"{report}: every hash, PSNR and SSIM is that of the pictures beside it", soft_wrap=True)


def main() -> None:
    """Entry point of the command."""
    run_cli(lambda: parse(EvalCommand, "eugen-eval").run())


if __name__ == "__main__":
    main()
