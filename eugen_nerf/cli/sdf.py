"""`eugen-sdf`: mesh, slices, volume and comparison of trained signed distances; all in metres, on a CPU too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from eugen_nerf.cli.support.common import run_cli
from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.checks.names import NAME
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import CELL, FINITE, POSITIVE, THREADS
from eugen_nerf.evaluation.output_paths import check_sdf_report
from eugen_nerf.evaluation.sdf.sdf_protocol import SdfProtocol
from eugen_nerf.methods.runs.run_paths import check_config_paths, check_data_path
from eugen_nerf.surfaces.files import check_new_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eugen_nerf.surfaces.distance_field import SignedDistance

Box = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class _OneRun:
    """The options of all commands on one run."""

    load_config: Path
    """The config.yml of the run."""
    bounds: Annotated[Box | None, FINITE] = None
    """Box to look at: xmin ymin zmin xmax ymax zmax in metres (default: the box that was mapped)."""
    data: Path | None = None
    """Where the sequence is, if not where the config says."""
    trust_config: bool = False
    """Read config.yml as nerfstudio does, which runs code that it names: for other plugins' runs that you trust."""
    device: str | None = None
    """Such as cpu or cuda (default: the GPU where there is one)."""
    overwrite: bool = False
    """Replace an older file."""


@dataclass(frozen=True, kw_only=True)
class MeshCommand(_OneRun):
    """Make a mesh of the surface (PLY, metres) by marching cubes."""

    output: Path = Path("mesh.ply")
    """File to write, ending in .ply."""
    voxel: Annotated[float, CELL] = 0.02
    """Edge of a grid cell in metres."""
    crop: bool = True
    """Keep only what a training view observed (up to 10 cm behind the measured depth)."""

    def run(self) -> None:
        """Makes and writes the mesh."""
        from eugen_nerf.surfaces.mesh import extract_mesh, write_mesh

        if self.output.suffix != ".ply":
            raise ConfigError(f"--output {self.output} must end in .ply")
        _check(self)
        sdf, run = _load(self)
        with _progress("meshing") as progress:
            mesh = extract_mesh(sdf.distance, _bounds(sdf, self.bounds), self.voxel, progress)
        if self.crop:
            from eugen_nerf.data.rgbd.depth_views import depth_views
            from eugen_nerf.evaluation.sdf.sdf_comparison import OBSERVED_WIDTH, split_outputs
            from eugen_nerf.evaluation.sdf.sdf_metrics import OBSERVED_MARGIN

            outputs = split_outputs(run).train
            stride = max(1, int(outputs.cameras.width.flatten()[0]) // OBSERVED_WIDTH)
            mesh = mesh.cropped(depth_views(outputs, stride=stride).observed(mesh.vertices, OBSERVED_MARGIN))
        write_mesh(mesh, self.output, normals=_unit(sdf.gradient(mesh.vertices)), overwrite=self.overwrite)
        print(f"{self.output}: wrote {len(mesh.vertices):,} vertices and {len(mesh.faces):,} faces, in metres")


@dataclass(frozen=True, kw_only=True)
class SliceCommand(_OneRun):
    """Draw slices through the signed distance: colours are metres, black lines are surfaces."""

    output: Path = Path("slices.png")
    """File to write: .png, .svg or .pdf."""
    axis: Literal["x", "y", "z"] = "z"
    """Axis that the slices are across."""
    at: Annotated[tuple[float, ...], FINITE] = ()
    """Where on it, metres; several make several slices (default: a quarter, half and three quarters of the box)."""
    voxel: Annotated[float, CELL] = 0.02
    """Edge of a pixel in metres."""
    limit: Annotated[float, POSITIVE] = 1.0
    """Metres at which the colours end."""

    def run(self) -> None:
        """Draws and writes."""
        from eugen_nerf.surfaces.files import new_file
        from eugen_nerf.surfaces.slices import draw_slices, sample_slice

        if self.output.suffix not in (".png", ".svg", ".pdf") or not self.limit > 0.0:
            raise ConfigError(f"--output {self.output} must end in .png, .svg or .pdf, and --limit must be positive")
        _check(self)
        sdf, _ = _load(self)
        box, axis = _bounds(sdf, self.bounds), "xyz".index(self.axis)
        low, high = float(box[0, axis]), float(box[1, axis])
        positions = self.at or tuple(round(low + share * (high - low), 2) for share in (0.25, 0.5, 0.75))
        slices = {
            f"slice {i + 1}": sample_slice(sdf.distance, box, axis, at, self.voxel) for i, at in enumerate(positions)
        }
        with new_file(self.output, overwrite=self.overwrite) as partial:
            draw_slices(slices, partial, limit=self.limit)
        metres = ", ".join(f"{at:g}" for at in positions)
        print(f"{self.output}: drew {len(slices)} slices across {self.axis} at {metres} m")


@dataclass(frozen=True, kw_only=True)
class VolumeCommand(_OneRun):
    """Save the signed distance on a regular grid as .npz: distance, origin, spacing, axes, version.

    `distance[i, j, k]` (metres, negative inside) belongs to the point `origin + spacing * (i, j, k)`.
    """

    output: Path = Path("volume.npz")
    """File to write, ending in .npz."""
    voxel: Annotated[float, CELL] = 0.05
    """Spacing of the grid in metres."""

    def run(self) -> None:
        """Samples and writes."""
        from eugen_nerf.surfaces.volume import sample_volume, save_volume

        if self.output.suffix != ".npz":
            raise ConfigError(f"--output {self.output} must end in .npz")
        _check(self)
        sdf, _ = _load(self)
        with _progress("sampling") as progress:
            volume = sample_volume(sdf.distance, _bounds(sdf, self.bounds), self.voxel, progress)
        save_volume(volume, self.output, overwrite=self.overwrite)
        shape = " x ".join(map(str, volume.distance.shape))
        print(f"{self.output}: wrote {shape} signed distances, {self.voxel:g} m apart, in metres")


@dataclass(frozen=True)
class EvaluateCommand:
    """Compare runs of one sequence with the exact signed distance (room.json), or with held-out depth and fusion.

    Prints tables, and writes report.json, report.html and slices.png.
    """

    load_config: tuple[Path, ...]
    """The config.yml of each run."""
    names: Annotated[tuple[str, ...], NAME] = ()
    """What to call the runs, in the same order; NAME-s0, NAME-s1, ... are averaged as seeds of NAME."""
    baseline: str | None = None
    """The run that speeds are compared with (default: the first)."""
    output: Path = Path("outputs/sdf")
    """Folder of the report."""
    overwrite: bool = False
    """Replace an older report in that folder."""
    data: Path | None = None
    """Read the sequence from here instead of where the runs' configs say."""
    trust_config: bool = False
    """Read config.yml as nerfstudio does, which runs code that it names: for other plugins' runs that you trust."""
    protocol: SdfProtocol = field(default_factory=SdfProtocol)
    """What is measured."""
    device: str | None = None
    """Device for all runs (default: the GPU where there is one)."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads of torch (default: torch's own choice)."""
    published: Path | None = None
    """A JSON file of published results to show beside: a list of texts and their sources."""

    def run(self) -> None:
        """Checks the settings, measures, prints, writes."""
        check_config_paths(self.load_config)
        check_data_path(self.data)
        check_sdf_report(self.output, overwrite=self.overwrite)
        import torch
        from rich.console import Console

        from eugen_nerf.evaluation.sdf.sdf_comparison import evaluate_sdf
        from eugen_nerf.evaluation.sdf.sdf_report import print_tables, write_report
        from eugen_nerf.evaluation.statistics.claims import groups_of, judged
        from eugen_nerf.evaluation.statistics.published import read_published

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        published = [] if self.published is None else read_published(self.published)
        comparison = evaluate_sdf(
            self.load_config,
            names=self.names,
            baseline=self.baseline,
            protocol=self.protocol,
            device=self.device,
            data=self.data,
            trust_config=self.trust_config,
        )
        comparison.published.extend(judged(published, groups_of(comparison.rows)))
        console = Console()
        print_tables(comparison, console)
        for path in write_report(comparison, self.output, overwrite=self.overwrite):
            console.print(f"wrote {path}", soft_wrap=True, highlight=False, markup=False)


COMMANDS = {"mesh": MeshCommand, "slice": SliceCommand, "volume": VolumeCommand, "evaluate": EvaluateCommand}


def _check(command: MeshCommand | SliceCommand | VolumeCommand) -> None:
    """Refuses wrong paths before anything is loaded."""
    check_config_paths([command.load_config])
    check_data_path(command.data)
    check_new_file(command.output, overwrite=command.overwrite)


def _load(command: _OneRun) -> tuple[SignedDistance, Any]:
    """The signed distance of a run, and the run."""
    from eugen_nerf.methods.runs.loading import load_run
    from eugen_nerf.surfaces.distance_field import SignedDistance

    run = load_run(
        command.load_config,
        device=command.device,
        test_mode="inference",
        data=command.data,
        trust_config=command.trust_config,
    )
    return SignedDistance.of_model(run.model), run


def _bounds(sdf: SignedDistance, given: Box | None) -> NDArray[Any]:
    """Corners [2, 3] of the box that was given, else of the mapped one, in metres."""
    import numpy as np

    return sdf.bounds if given is None else np.array(given).reshape(2, 3)


def _unit(vectors: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


@contextmanager
def _progress(text: str) -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr; yields a function to call with the share done."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point; `args` are those of the command line by default."""
    run_cli(lambda: parse(COMMANDS, "eugen-sdf", args, __doc__).run())


if __name__ == "__main__":
    main()
