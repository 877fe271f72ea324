"""eugen-distill: turn a trained run into an EUGen run in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from eugen_nerf.cli.common import print_lines, run_cli


@dataclass
class Distill:
    """Convert a trained run (of any eugen-* method, dense or hybrid, or stock vanilla-nerf or dnerf) in closed form."""

    load_config: Path
    """config.yml of the teacher. It is read as nerfstudio reads it, which can run code: load only runs you trust."""
    fields: tuple[str, ...] = ()
    """Fields to convert: regular expressions on deformation, coarse, fine, or field and proposal_0, ... (default: all
    but proposals). The others stay as they are."""
    layers: tuple[str, ...] = ()
    """Layers to replace: regular expressions on trunk_0, trunk_1, ..., head_0, ... (default: those that the run's
    method replaces)."""
    num_features: tuple[int, ...] = ()
    """Random features m: one number for all layers, or one for each in the network's order (default: the method's)."""
    proposals: bool = False
    """Convert the proposal networks too, by the layers and numbers of features of their own settings."""
    recipe: Literal["rows", "random"] = "rows"
    """rows: projections made of rows of the teacher, chosen greedily; random: drawn at random, the paper's Eq. (31)."""
    projection: Literal["gaussian", "rademacher", "orthogonal"] = "gaussian"
    """Distribution of random projections."""
    degree: int = 1
    """Degree of random features."""
    norm: bool = False
    """Whether random features see the input's norm."""
    sweeps: int = 4
    """Re-solves of the teacher's rows for the inputs the layer really gets, aware of its ReLU; for rows only."""
    train_steps: int = 0
    """Steps of gradient descent on each layer alone after the closed form (trained G, bias, Huber loss)."""
    train_lr: float = 1e-3
    """Learning rate of those steps."""
    ray_fraction: float = 1 / 64
    """Fraction of the training views' pixels whose rays are used."""
    max_rays: int = 4096
    """Largest number of rays."""
    seed: int = 0
    """Seed of the rays and of random projections."""
    experiment_name: str | None = None
    """Name of the new run; the teacher's with -distilled by default."""
    timestamp: str | None = None
    """Last folder of the new run; the present time by default."""
    output_dir: Path | None = None
    """Folder of runs; the teacher's by default."""
    device: str | None = None
    """Where to fit, such as cpu or cuda; a GPU where there is one by default."""
    data: Path | None = None
    """Data set, where it no longer lies where the teacher was trained."""

    def run(self) -> None:
        """Converts, writes the run and prints what became of each layer."""
        from rich.console import Console

        from eugen_nerf.conversion.distill import DistillConfig, distill, write_run
        from eugen_nerf.conversion.report import print_reports
        from eugen_nerf.core.convert import ConversionConfig
        from eugen_nerf.core.eugen import EUGenConfig
        from eugen_nerf.methods.runs import load_run

        console = Console()
        run = load_run(self.load_config, device=self.device, test_mode="val", data=self.data)
        eugen = EUGenConfig(degree=self.degree, norm=self.norm, projection=self.projection, seed=self.seed)
        conversion = ConversionConfig(
            recipe=self.recipe, eugen=eugen, sweeps=self.sweeps, train_steps=self.train_steps, train_lr=self.train_lr
        )
        config = DistillConfig(
            fields=self.fields,
            layers=self.layers,
            num_features=self.num_features,
            proposals=self.proposals,
            conversion=conversion,
            ray_fraction=self.ray_fraction,
            max_rays=self.max_rays,
            seed=self.seed,
            output_dir=self.output_dir,
            experiment_name=self.experiment_name,
            timestamp=self.timestamp,
        )
        with console.status("gathering moments") as status:
            trainer, model, reports = distill(
                run, config, lambda which, layer: status.update(f"{which} field: {layer} done")
            )
        path = write_run(trainer, model, run.step, reports)
        print_reports(console, reports)
        further = {
            "run written": path,
            "evaluate": f"eugen-eval --load-config {self.load_config} {path}",
            "train on": f"ns-train {trainer.method_name} --load-config {path}",
        }
        print_lines(console, further)


def main() -> None:
    """Entry point of eugen-distill."""
    run_cli(lambda: tyro.cli(Distill, prog="eugen-distill").run())


if __name__ == "__main__":
    main()
