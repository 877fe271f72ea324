"""eugen-bench speed: how fast dense and EUGen networks are evaluated here, by every way of running them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.ranges import THREADS, Range
from eugen_nerf.methods.runs.run_paths import check_config_paths
from eugen_nerf.surfaces.files import check_new_file, new_file

if TYPE_CHECKING:
    import torch
    from rich.console import Console

FAMILY_INDICES = {"nerf": 0, "mipnerf360": 1, "zipnerf": 2, "isdf": 3}
RENDERED = ("nerf", "mipnerf360")
"""Families of which a whole image is rendered."""


@dataclass
class SpeedCommand:
    """Measure the speed of networks, dense, narrower, of low rank and EUGen, and of a whole image.

    All rows take turns in one process. Ratios are to the fastest dense network of full width, however it is run:
    eager, by a plan, compiled, in float32 or bfloat16. Weights are random unless runs are given.
    """

    GROUPS: ClassVar = {
        "networks": ("families", "scale", "compile", "training"),
        "images": ("image", "samples", "load_config"),
        "timing": ("repeats", "warmup", "threads"),
    }

    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    output: Path | None = None
    """A JSON file for all figures."""
    overwrite: bool = False
    """Replace an older file."""
    families: tuple[Literal["nerf", "mipnerf360", "zipnerf", "isdf"], ...] = ("nerf", "mipnerf360", "zipnerf", "isdf")
    """Networks to measure."""
    repeats: Annotated[int, Range(1, 10_000)] = 9
    """Timed rounds; in each, all rows take turns."""
    warmup: Annotated[int, Range(0, 10_000)] = 1
    """Untimed rounds before."""
    scale: Annotated[float, Range(0, 1024, above=True)] = 1.0
    """Factor on the number of queries of a call."""
    compile: bool = True
    """Measure torch.compile too: a minute or so for each network on a slow machine."""
    training: bool = True
    """Measure forward and backward passes too."""
    threads: Annotated[int, tyro.conf.arg(metavar="INT"), THREADS] = 1
    """CPU threads of torch."""
    image: Annotated[int, tyro.conf.arg(metavar="INT"), Range(0, 8192)] = 32
    """Pixels along each side of the images, by nerf and by mipnerf360 where they are among the families; 0 for none.
    Runs are rendered at their own size."""
    samples: Annotated[tuple[int, int], Range(1, 100_000)] = (64, 128)
    """Coarse and further samples a ray of nerf's image."""
    load_config: tuple[Path, ...] = ()
    """Runs of eugen-* methods to render instead of random weights; the first is the dense one."""

    def run(self) -> None:
        """Measures, prints, writes."""
        check_config_paths(self.load_config)
        if self.output is not None:
            check_new_file(self.output, overwrite=self.overwrite)
        import torch
        from rich.console import Console

        from eugen_nerf.benchmarks.network_speed import FAMILIES
        from eugen_nerf.benchmarks.query_speed import measure_family, table_lines
        from eugen_nerf.benchmarks.training_speed import measure_training, training_lines

        device = self._device()
        torch.set_num_threads(self.threads)
        console, result = Console(width=200), self._start(device)
        for line in self._heading(result):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        for name in self.families:
            rows = measure_family(
                FAMILIES[FAMILY_INDICES[name]],
                device,
                result["peaks"],
                scale=self.scale,
                warmup=self.warmup,
                repeats=self.repeats,
                compiled=self.compile,
            )
            result["queries"] += rows
            self._keep(result)
            for line in ["", *table_lines(rows)]:
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        for name in self.families if self.training else ():
            rows = measure_training(FAMILIES[FAMILY_INDICES[name]], device, scale=self.scale, repeats=self.repeats)
            result["training"] += rows
            self._keep(result)
            for line in ["", *training_lines(rows)]:
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self.image or self.load_config:
            self._images(device, result, console)
        self._keep(result)
        if self.output is not None:
            console.print(f"wrote {self.output}", markup=False, highlight=False, soft_wrap=True)

    def _keep(self, result: dict[str, Any]) -> None:
        """Writes what there is so far: the whole takes half an hour on a slow machine."""
        if self.output is not None:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            with new_file(self.output, overwrite=True) as partial:
                partial.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf8")

    def _device(self) -> torch.device:
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise RunError("there is no CUDA device here; try --device cpu")
        return torch.device(self.device)

    def _start(self, device: torch.device) -> dict[str, Any]:
        from eugen_nerf.benchmarks.query_speed import measure_peaks
        from eugen_nerf.core.inference.onednn import has_fast_bfloat16
        from eugen_nerf.evaluation.costs.resources import environment

        settings = {"repeats": self.repeats, "warmup": self.warmup, "scale": self.scale, "compile": self.compile}
        return {
            "environment": {
                **environment(device, ["float32", "bfloat16"]),
                "bfloat16_products": has_fast_bfloat16(device),
                "tinycudann": _has_tinycudann(),
            },
            "settings": {**settings, "samples": list(self.samples), "image": self.image},
            "peaks": measure_peaks(device),
            "queries": [],
            "training": [],
            "images": [],
        }

    def _heading(self, result: dict[str, Any]) -> list[str]:
        from eugen_nerf.benchmarks.hardware import SIDES

        environment, peaks = result["environment"], result["peaks"]
        sides = " and ".join(map(str, SIDES[self.device]))
        return [
            f"{environment['device_name']}, {environment['threads']} thread(s), torch {environment['torch']}, "
            f"bfloat16 products of its own: {'yes' if environment['bfloat16_products'] else 'no'}",
            f"measured: products of {sides} a side {peaks['float32'] / 1e9:,.0f} GFLOP/s in float32, "
            f"{peaks['bfloat16'] / 1e9:,.0f} in bfloat16; copies {peaks['copy'] / 1e9:,.1f} GB/s",
            "" if environment["tinycudann"] else "tinycudann is not installed: its fused networks are left out",
        ]

    def _images(self, device: torch.device, result: dict[str, Any], console: Console) -> None:
        from eugen_nerf.benchmarks.network_speed import FAMILIES
        from eugen_nerf.evaluation.costs.image_speed import (
            image_lines,
            measure_images,
            one_camera,
            random_models,
            ways_of,
        )

        def measure(what: str, models: dict[str, Any], camera: Any) -> None:
            ways = ways_of(models, [next(iter(models))], camera)
            rounds = self.warmup + self.repeats + self.repeats // 2 + 1
            line = f"{what}: an image by {len(ways)} ways in {rounds} rounds: some minutes on a slow machine"
            console.print(f"\n{line}", markup=False, highlight=False, soft_wrap=True)
            rows = measure_images(ways, camera, warmup=self.warmup, repeats=self.repeats)
            result["images"] += [{"family": what, **row} for row in rows]
            self._keep(result)
            side = f"{int(camera.width[0])}x{int(camera.height[0])}"
            title = f"{what}: one image of {side} pixels, seconds; ratio to the best dense row (*)"
            for line in ["", title, *image_lines(rows)]:
                console.print(line, markup=False, highlight=False, soft_wrap=True)

        if self.load_config:
            measure("runs", *_runs(self.load_config, self.device))
            return
        for name in RENDERED:
            if name in self.families:
                family = FAMILIES[FAMILY_INDICES[name]]
                models = random_models(family, device, samples=self.samples)
                measure(family.name, models, one_camera(self.image, device))


def _runs(paths: tuple[Path, ...], device: str) -> tuple[dict[str, Any], Any]:
    from eugen_nerf.evaluation.images.view_rendering import view_camera
    from eugen_nerf.methods.graph_model import GraphModel
    from eugen_nerf.methods.runs.loading import load_run

    runs = [load_run(path, device=device) for path in paths]
    wrong = [str(run.path) for run in runs if not isinstance(run.model, GraphModel)]
    if wrong:
        raise ConfigError(f"{wrong[0]} is no run of an eugen-* method: eugen-distill --layers none makes one of it")
    names = [path.parents[2].name if len(path.parents) > 2 else str(path) for path in paths]
    unique = [name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names)]
    return {name: run.model for name, run in zip(unique, runs, strict=True)}, view_camera(runs[0], 0)


def _has_tinycudann() -> bool:
    import importlib.util

    return importlib.util.find_spec("tinycudann") is not None
