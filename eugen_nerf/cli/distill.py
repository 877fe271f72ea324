"""eugen-distill: turn a trained run into an EUGen run in closed form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from eugen_nerf.cli.support.common import print_lines, run_cli, shared_by_torchrun
from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.checks.names import NAME
from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.choices import Product, RecipeName
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import COUNT, COUNT_OR_NONE, SEED, Range
from eugen_nerf.methods.runs.run_paths import check_config_paths, check_data_path

if TYPE_CHECKING:
    from rich.console import Console

    from eugen_nerf.conversion.conversion_settings import DistillConfig
    from eugen_nerf.conversion.convert_run import Budget, Converted
    from eugen_nerf.conversion.pending_bundle import PendingBundle
    from eugen_nerf.conversion.teachers.teacher import Teacher
    from eugen_nerf.methods.runs.loading import Run

MUCH = 0.3
"""dB lost in closed form from which on training a narrower network is named as another way."""


@dataclass
class Distill:
    """Convert a trained run in closed form: of any eugen-* method, dense or hybrid, or of a stock method."""

    GROUPS: ClassVar = {
        "budget": ("speedup", "max_drop", "macs"),
        "choice": ("fields", "layers", "exclude", "num_features", "proposals"),
        "fit": ("recipe", "projection", "degree", "product", "norm", "sweeps", "output_aware", "train_steps",
                "train_lr", "ray_fraction", "max_rays", "seed"),
        "calibration": ("finetune_steps", "finetune_minutes", "elastic"),
        "output": ("share", "bundle", "onnx", "experiment_name", "timestamp", "output_dir"),
    }  # fmt: skip

    load_config: Path
    """config.yml of the teacher."""
    fields: tuple[str, ...] = ()
    """Fields to convert: regular expressions on deformation, coarse, fine, or field and proposal_0, ... (default: all
    but proposals). The others stay as they are."""
    layers: tuple[str, ...] = ()
    """Layers to replace: regular expressions on trunk_0, trunk_1, ..., head_0, ... (default: those that the run's
    method replaces; with a budget, all hidden dense ones). Of stock methods other than vanilla-nerf and dnerf: on full
    module names, such as field.mlp_head.* (default: all hidden ones but proposals'). The one word none converts
    nothing: with --finetune-steps, the teacher trained on, to compare with; with --bundle alone, a bundle of the run as
    it is."""
    exclude: tuple[str, ...] = ()
    """Layers to leave as they are: regular expressions as in --layers."""
    num_features: Annotated[tuple[int, ...], COUNT] = ()
    """Features m of converted layers: one number, or one for each in the network's order (default: the method's)."""
    speedup: Annotated[float | None, Range(1, 1000, above=True, below=True)] = None
    """A budget instead of numbers of features: how many times faster field queries must be, measured."""
    max_drop: Annotated[float | None, Range(0, 60, above=True, below=True)] = None
    """A budget: how many dB of PSNR may be lost, measured against photographs on rays that are not fitted to."""
    macs: Annotated[float | None, Range(0, 1, above=True, below=True)] = None
    """A budget: share of the teacher's multiply-adds that a query may cost."""
    finetune_steps: Annotated[int | None, COUNT] = None
    """Steps of gradient calibration of the whole student on the training views afterwards. It never ends worse on the
    rays that it is checked with."""
    finetune_minutes: Annotated[float | None, Range(0, 100_000, above=True)] = None
    """Minutes of it instead."""
    elastic: Annotated[tuple[float, ...], Range(0, 1, above=True, below=True)] = ()
    """Shares of the features, such as 0.75 0.5 0.25, at which the new run can be evaluated too, without another fit:
    neurons are put in the order in which they are chosen, and calibration, which this needs, trains all shares at once.
    Without a budget or --num-features all neurons are kept. Evaluate by eugen-eval --shares; write one share by
    --share."""
    share: Annotated[float | None, Range(0, 1, above=True)] = None
    """In place of a conversion: the run as it is, but evaluated at this share of its features, one of those that it was
    trained at (--elastic, or --pipeline.model.network.shares)."""
    bundle: Path | None = None
    """Also write the final field as a bundle to this folder, with all that renders it: safetensors and JSON, read and
    rendered with torch alone."""
    onnx: bool = False
    """Write the bundle's collapsed networks as ONNX too."""
    proposals: bool = False
    """Convert the proposal networks too, by the layers and numbers of features of their own settings."""
    recipe: RecipeName = "rows"
    """rows: projections made of rows of the teacher, chosen greedily; random: drawn at random, the paper's Eq. (31);
    whitened: the same for inputs made equally wide in all directions. To compare with: pruned: the rows that count
    most, nothing fitted; compensated: the same rows, their consumers solved for again; svd: low rank; aware: low rank
    by the inputs' second moments. pruned and compensated take every budget, as rows does; the others --num-features
    (svd, aware: the rank) or --macs, of which random and whitened get the same share in every layer."""
    projection: Literal["gaussian", "rademacher", "orthogonal"] = "gaussian"
    """Distribution of random projections."""
    degree: Annotated[int, Range(1, 16)] = 1
    """Degree of random features."""
    product: Product = "plain"
    """How the two projections of random features of degree 2 are joined: plain, or without an outer function harmonic,
    minimum or clamped."""
    norm: bool = False
    """Whether random features have a column for the input's norm."""
    sweeps: Annotated[int, Range(0, 1000)] = 4
    """Re-solves of the teacher's rows for the inputs the layer really gets, aware of its ReLU; for rows only."""
    output_aware: bool = True
    """Choose and allocate by the effect of errors on rendered images: one backward pass of the teacher (not random,
    whitened)."""
    train_steps: Annotated[int, COUNT_OR_NONE] = 0
    """Steps of gradient descent on each layer alone after the closed form (trained G, bias, Huber loss)."""
    train_lr: Annotated[float, Range(0, 1000, above=True)] = 1e-1
    """Learning rate of those steps, by Muon."""
    ray_fraction: Annotated[float, Range(0, 1, above=True)] = 1 / 64
    """Fraction of the training views' pixels whose rays are used."""
    max_rays: Annotated[int, Range(1, 10_000_000)] = 4096
    """Largest number of rays."""
    seed: Annotated[int, SEED] = 0
    """Seed of the rays and of random projections."""
    experiment_name: Annotated[str | None, NAME] = None
    """Name of the new run; the teacher's with -distilled by default."""
    timestamp: Annotated[str | None, NAME] = None
    """Last folder of the new run; the present time by default."""
    output_dir: Path | None = None
    """Folder of runs; the teacher's by default."""
    device: str | None = None
    """Where to fit, such as cpu or cuda; a GPU where there is one by default."""
    data: Path | None = None
    """Data set, where it no longer lies where the teacher was trained."""
    trust_config: bool = False
    """Read config.yml as nerfstudio does, which runs code that it names: for other plugins' runs that you trust."""

    def run(self) -> None:
        """Converts, writes the run and prints what became of each layer."""
        check_config_paths([self.load_config])
        check_data_path(self.data)
        self._check_options()
        from rich.console import Console

        from eugen_nerf.conversion.bundle_scene import check_bundled
        from eugen_nerf.conversion.conversion_settings import NO_LAYERS
        from eugen_nerf.conversion.conversion_table import print_budget, print_reports
        from eugen_nerf.conversion.convert_run import open_teacher
        from eugen_nerf.conversion.run_writer import NARROWER, write_run
        from eugen_nerf.core.distributed import first_process_value, process_index
        from eugen_nerf.methods.runs.loading import load_run
        from eugen_nerf.methods.runs.training_data import training_data_files

        first = process_index() == 0
        console = Console(quiet=not first)
        if self.bundle is not None and self.layers == NO_LAYERS and not self._finetunes:
            if first:
                self._bundle_alone(console, self.bundle)
            return
        budget, config = self._budget(), self._config()
        run = load_run(
            self.load_config, device=self.device, test_mode="val", data=self.data, trust_config=self.trust_config
        )
        pending = None
        if self.bundle is not None:
            check_bundled(run)  # says so now where the run cannot become one
            pending = self._pending(run)
            if (written := first_process_value(pending.run())) is not None:
                if first:
                    console.print(f"{written} is there since the last time, and its bundle alone is made")
                    self._finish(console, written, pending)
                return
        teacher = open_teacher(run, config, keep=True)
        if self.share is None:
            console.print(teacher.memory_line())
            converted, record = self._convert(console, teacher, budget)
        else:
            converted, record = self._at_share(teacher, self.share), {"share": self.share}
        if not first:
            return
        student = converted.student
        if pending is not None:
            pending.note(student.trainer.get_base_dir() / "config.yml")
        files = {**self._drawings(converted), **self._narrower(teacher, converted), **training_data_files(run.pipeline)}
        path = write_run(student.trainer, student.model, run.step, student.reports, record, files)
        teacher.forget()
        print_reports(console, student.reports, bundled=self.bundle is not None)
        if converted.budget is not None:
            print_budget(console, converted.budget)
            drop = converted.budget.measured.drop
            if drop is not None and drop > MUCH and NARROWER in files:
                console.print(
                    f"{drop:.2f} dB in closed form is much. If you can train for as long as the teacher was trained, "
                    "a narrower network of as many multiply-adds mostly loses less: train anew, as below "
                    "(docs/guides/conversion.md)"
                )
        self._finish(console, path, pending)

    @staticmethod
    def _at_share(teacher: Teacher, share: float) -> Converted:
        """The run at a share of its features; raises `ConfigError` where it was not trained at it."""
        from eugen_nerf.conversion.convert_run import Converted
        from eugen_nerf.conversion.teachers.graph_teacher import GraphTeacher

        if not isinstance(teacher, GraphTeacher):
            raise ConfigError("--share needs a run of a method eugen-* that was trained at shares of its features")
        return Converted(teacher.at_share(share))

    def _bundle_alone(self, console: Console, place: Path) -> None:
        """Bundles the run as it is, converted or not; raises `ConfigError` as `check_bundled`."""
        from eugen_nerf.conversion.bundle_scene import bundle_of_run
        from eugen_nerf.core import save_bundle
        from eugen_nerf.methods.runs.loading import load_run

        run = load_run(self.load_config, device=self.device, data=self.data, trust_config=self.trust_config)
        save_bundle(bundle_of_run(run, progress=console.print), place, onnx=self.onnx)
        print_lines(console, {"bundle written": place, "look at it": f"eugen-view {place}"})

    def _finish(self, console: Console, path: Path, pending: PendingBundle | None) -> None:
        """Makes the bundle of a run that is written, and says what there is; raises `BundleError`."""
        from eugen_nerf.conversion.run_writer import NARROWER, TRAIN_ON
        from eugen_nerf.methods.runs.loading import load_run

        further: dict[str, object] = {"run written": path}
        if self.bundle is not None and pending is not None:
            run = load_run(path, device=self.device, data=self.data, trust_config=self.trust_config)
            pending.make(run, self.bundle, onnx=self.onnx, progress=console.print)
            further["bundle written"] = self.bundle
        method = path.parent.parent.name
        further |= {
            "evaluate": f"eugen-eval --load-config {self.load_config} {path}",
            "train on": f"ns-train {method} --load-config {path.with_name(TRAIN_ON)}",
        }
        if path.with_name(NARROWER).exists():
            further["train anew"] = f"ns-train {method} --load-config {path.with_name(NARROWER)}"
        print_lines(console, further)

    def _pending(self, run: Run) -> PendingBundle:
        """The note of this command; where its bundle goes, and on which device, does not matter."""
        from eugen_nerf.conversion.pending_bundle import PendingBundle

        settings = {**asdict(self), "checkpoint": (run.checkpoint.name, run.checkpoint.stat().st_mtime_ns)}
        for name in ("bundle", "onnx", "device", "trust_config"):
            del settings[name]
        return PendingBundle(self.output_dir or run.config.output_dir, sorted(settings.items()))

    def _check_options(self) -> None:
        """Refuses options that contradict one another, before anything slow is imported."""
        goals = {"--speedup": self.speedup, "--max-drop": self.max_drop, "--macs": self.macs}
        given = [name for name, value in goals.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} are two budgets: give one")
        if given and self.num_features:
            raise ConfigError(f"{given[0]} chooses the numbers of features: leave --num-features out")
        if self.bundle is not None and self.bundle.exists():
            raise ConfigError(f"{self.bundle} exists; choose another --bundle")
        if self.share is not None and (given or self.num_features or self.layers or self._finetunes or self.elastic):
            raise ConfigError("--share converts nothing: leave budgets, --num-features, --layers and calibration out")
        if self.elastic and not self._finetunes:
            raise ConfigError("--elastic trains all shares together: give --finetune-steps or --finetune-minutes too")
        if self.elastic and self.layers == ("none",):
            raise ConfigError(
                "--layers none converts nothing, --elastic puts neurons of layers in order: leave one out"
            )
        if self.onnx and self.bundle is None:
            raise ConfigError("--onnx writes beside a bundle: give --bundle as well")
        for option, place in {"--bundle": self.bundle, "--output-dir": self.output_dir}.items():
            if place is not None:
                check_place(place, "folder", option)

    def _budget(self) -> Budget | None:
        """The budget, where one is given.

        Raises:
            ConfigError: one that makes no sense, or that the recipe cannot be given.
        """
        from eugen_nerf.conversion.budget.budget_search import Goal, check_goal
        from eugen_nerf.conversion.convert_run import Budget
        from eugen_nerf.core.fitting.recipes.registry import recipe_named

        goals: dict[Goal, float | None] = {"speedup": self.speedup, "max_drop": self.max_drop, "macs": self.macs}
        for goal, value in goals.items():
            if value is not None:
                check_goal(goal, value, recipe_named(self.recipe))
                return Budget(goal, value)
        return None

    def _config(self) -> DistillConfig:
        """What to replace, how and where the new run will lie.

        Raises:
            ConfigError: nothing is converted and nothing fine-tuned, or fine-tuning in several processes.
        """
        from eugen_nerf.conversion.conversion_settings import NO_LAYERS, DistillConfig
        from eugen_nerf.core.distributed import process_count
        from eugen_nerf.core.eugen import EUGenConfig
        from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig

        if self.layers == NO_LAYERS and not self._finetunes:
            raise ConfigError(
                "--layers none converts nothing: give --finetune-steps or --finetune-minutes with it, "
                "or --bundle to bundle the run as it is"
            )
        if process_count() > 1 and self._finetunes:
            raise ConfigError("calibration runs in one process: convert first, then calibrate the run alone")
        eugen = EUGenConfig(
            degree=self.degree,
            phi="relu" if self.product == "plain" else "identity",
            norm=self.norm,
            projection=self.projection,
            seed=self.seed,
            product=self.product,
        )
        conversion = ConversionConfig(
            recipe=self.recipe, eugen=eugen, sweeps=self.sweeps, train_steps=self.train_steps, train_lr=self.train_lr
        )
        return DistillConfig(
            fields=self.fields,
            layers=self.layers if self.share is None else NO_LAYERS,
            exclude=self.exclude,
            num_features=self.num_features,
            proposals=self.proposals,
            conversion=conversion,
            output_aware=self.output_aware,
            ray_fraction=self.ray_fraction if self.share is None else 1.0,  # of no use there: never too few
            max_rays=self.max_rays,
            seed=self.seed,
            shares=self.elastic,
            output_dir=self.output_dir,
            experiment_name=self.experiment_name,
            timestamp=self.timestamp,
        )

    @property
    def _finetunes(self) -> bool:
        return bool(self.finetune_steps or self.finetune_minutes)

    def _convert(
        self, console: Console, teacher: Teacher, budget: Budget | None
    ) -> tuple[Converted, dict[str, object]]:
        """The student, fine-tuned where that is wanted, and what `distill.json` says of both besides its reports."""
        from eugen_nerf.cli.support.distill_progress import shown
        from eugen_nerf.conversion.convert_run import convert_teacher, finetune

        record: dict[str, object] = {}
        plan = teacher.configured_plan() if budget is None else {}  # a budget's is not known before
        known = [(name, layer) for name, layers in plan.items() for layer in layers]
        with shown(console, known) as steps:
            converted = convert_teacher(teacher, budget, steps.report)
            if budget is not None and converted.budget is not None:
                record["budget"] = {**budget._asdict(), **converted.budget.record()}
            if self._finetunes:
                report = finetune(
                    teacher,
                    converted.student.model,
                    steps=self.finetune_steps,
                    minutes=self.finetune_minutes,
                    progress=steps.calibrating,
                )
                record["calibration"] = asdict(report)
        if self._finetunes:
            console.print(str(report))
        return converted, record

    @staticmethod
    def _narrower(teacher: Teacher, converted: Converted) -> dict[str, str]:
        """What is written beside `distill.json` too: how a narrower network of the same cost is trained anew."""
        import yaml

        from eugen_nerf.conversion.run_writer import NARROWER

        trainer = teacher.narrower(converted.student)
        return {} if trainer is None else {NARROWER: yaml.dump(trainer)}

    @staticmethod
    def _drawings(converted: Converted) -> dict[str, str]:
        """What is written beside `distill.json`: the front, where drops are predicted."""
        from eugen_nerf.evaluation.reports.svg_plots import front_svg, standalone

        budget = converted.budget
        if budget is None or budget.measured.predicted_drop is None:
            return {}
        return {"front.svg": standalone(front_svg(budget.record()))}


def main() -> None:
    """Entry point of eugen-distill; under torchrun its processes share the rays."""

    def run() -> None:
        command = parse(Distill, "eugen-distill")
        with shared_by_torchrun():
            command.run()

    run_cli(run)


if __name__ == "__main__":
    main()
