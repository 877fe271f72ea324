"""`eugen-data`: generate scenes and rooms, fetch public data sets, check a data set, place your own photographs."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tyro

from eugen_nerf.cli.support.common import run_cli
from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.core.ranges import Range
from eugen_nerf.data.synthetic.dynamic_scene import DynamicConfig, generate_dynamic
from eugen_nerf.data.synthetic.scan import RoomConfig, generate_room
from eugen_nerf.data.synthetic.static_scene import SceneConfig, generate_scene

DatasetName = Literal[
    "blender", "dnerf", "mill19", "nerfosr", "nerfstudio", "phototourism", "record3d", "sdfstudio", "sitcoms3d"
]

# nerfstudio's download classes; its eyefultower needs the AWS client and options of its own: use ns-download-data.
DOWNLOADS: dict[str, str] = {
    "blender": "BlenderDownload",
    "dnerf": "DNerfDownload",
    "mill19": "Mill19Download",
    "nerfosr": "NeRFOSRDownload",
    "nerfstudio": "NerfstudioDownload",
    "phototourism": "PhototourismDownload",
    "record3d": "Record3dDownload",
    "sdfstudio": "SDFstudioDemoDownload",
    "sitcoms3d": "Sitcoms3DDownload",
}


@dataclass(frozen=True)
class SceneCommand:
    """Generate the demonstration scene as a Blender-format data set."""

    output: Path = Path("data/scene")
    """Directory to make."""
    overwrite: bool = False
    """Replace a data set that is already there, once the new one is complete."""
    scene: SceneConfig = field(default_factory=SceneConfig)
    """What to generate."""

    def run(self) -> None:
        """Generates and writes; raises `DataError`."""
        path = generate_scene(self.output, self.scene, overwrite=self.overwrite)
        print(f"{path}: wrote {_view_counts(self.scene)}")


@dataclass(frozen=True)
class DynamicCommand:
    """Generate a scene that moves as a D-NeRF-format data set: every view at a time of its own, from 0 to 1."""

    output: Path = Path("data/dynamic")
    """Directory to make."""
    overwrite: bool = False
    """Replace a data set that is already there, once the new one is complete."""
    scene: DynamicConfig = field(default_factory=DynamicConfig)
    """What to generate."""

    def run(self) -> None:
        """Generates and writes; raises `DataError`."""
        path = generate_dynamic(self.output, self.scene, overwrite=self.overwrite)
        print(f"{path}: wrote {_view_counts(self.scene)}, times 0 to 1")


@dataclass(frozen=True)
class RoomCommand:
    """Generate a room, an RGB-D scan of it, and its exact signed distance (room.json); all in metres."""

    output: Path = Path("data/room")
    """Directory to make."""
    overwrite: bool = False
    """Replace a room that is already there, once the new one is complete."""
    room: RoomConfig = field(default_factory=RoomConfig)
    """What to generate."""

    def run(self) -> None:
        """Generates and writes; raises `DataError` or `ConfigError`."""
        path = generate_room(self.output, self.room, overwrite=self.overwrite)
        width, height = self.room.resolution
        frames = f"{self.room.num_frames} RGB-D frames of {width}x{height}"
        print(f"{path}: wrote {frames} and the room's exact signed distance")


@dataclass(frozen=True)
class FetchCommand:
    """Download a public data set with nerfstudio's ns-download-data."""

    dataset: DatasetName = "blender"
    """Which data set."""
    capture_name: str | None = None
    """Which capture of it, where it has several; by default nerfstudio's own choice."""
    save_dir: Path = Path("data")
    """Directory that gets a folder named after the data set."""

    def run(self) -> None:
        """Downloads; raises `ConfigError` for an unknown capture, `DataError` where it fails."""
        from nerfstudio.scripts.downloads import download_data

        kind = getattr(download_data, DOWNLOADS[self.dataset])
        options: dict[str, Any] = {"save_dir": self.save_dir}
        # sdfstudio's class calls it dataset_name.
        keys = [name for name in ("capture_name", "dataset_name") if name in {option.name for option in fields(kind)}]
        check_place(self.save_dir, "folder", "--save-dir")
        target = self.save_dir / self.dataset
        if keys:
            allowed = get_args(get_type_hints(kind)[keys[0]])
            capture = self.capture_name or getattr(kind, keys[0])
            if capture not in allowed:
                raise ConfigError(
                    f"data set {self.dataset} has no capture '{capture}': choose one with --capture-name from "
                    f"{', '.join(map(str, allowed))}"
                )
            options[keys[0]] = capture
            target = target / capture
        elif self.capture_name is not None:
            raise ConfigError(f"data set {self.dataset} comes whole: leave out --capture-name '{self.capture_name}'")
        # nerfstudio deletes an older copy before it knows whether the download works.
        if target.is_dir() and any(target.iterdir()):
            raise DataError(f"'{target}' exists and is not empty: move it away, or choose another --save-dir")
        try:
            download_data.main(kind(**options))
        except _download_errors() as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(
                f"could not download {self.dataset} to '{self.save_dir}' ({reason}): check the network connection and "
                "the space left, then run the same command again"
            ) from error
        print(f"{target}: downloaded")


@dataclass(frozen=True)
class CheckCommand:
    """Check a data set in Blender's, D-NeRF's, nerfstudio's or COLMAP's format and print what it holds."""

    data: tyro.conf.Positional[Path]
    """Directory of the data set."""
    splits: tuple[str, ...] = ("train", "val", "test")
    """Splits to check, of Blender's and D-NeRF's formats."""

    def run(self) -> None:
        """Checks; raises `DataError`."""
        from eugen_nerf.data.poses import check_directory

        if not self.splits:
            raise ConfigError("--splits is empty: name at least one of train, val, test")
        check_directory(self.data)
        from eugen_nerf.data.checks import check_blender_directory, check_image_directory, has_times

        times = any(has_times(self.data, split) for split in self.splits)
        whole = self.data.is_dir() and not any(self.data.glob("transforms_*.json"))
        summary = (
            check_image_directory(self.data) if whole else check_blender_directory(self.data, self.splits, times=times)
        )
        counts = ", ".join(f"{split} {count}" for split, count in summary.counts.items())
        width, height = summary.size or (0, 0)
        moving = ", with times" if times else ""
        print(f"{self.data}: ok: {counts} images of {width}x{height}, field of view {summary.angle_x:.4f} rad{moving}")


@dataclass(frozen=True)
class PhotosCommand:
    """Find the cameras of your own photographs, and write them as a data set in nerfstudio's format."""

    photos: tyro.conf.Positional[Path]
    """Folder of photographs of one scene that does not move."""
    output: Path = Path("data/photos")
    """Directory to make."""
    max_size: Annotated[int, Range(64, 65_536)] = 1600
    """Pixels along the longer side: larger photographs are made smaller."""

    def run(self) -> None:
        """Finds and writes; raises `DataError` or `ConfigError`."""
        from eugen_nerf.data.photographs.pose_estimation import photograph_files

        check_place(self.output, "folder")
        files = photograph_files(self.photos)
        if self.output.exists():
            raise DataError(f"'{self.output}' exists: move it away, or choose another --output")
        from rich.console import Console

        from eugen_nerf.cli.support.progress import stages
        from eugen_nerf.data.photographs.pose_estimation import STEPS, make_data_set

        with stages(Console(stderr=True), STEPS) as report:
            capture = make_data_set(files, self.output, self.max_size, report)
        lens, lenses = capture.lenses[0], len({tuple(lens.values()) for lens in capture.lenses})
        shared = "" if lenses == 1 else f", the first of {lenses} lenses"
        print(
            f"{self.output}: placed {len(capture.names)} of {len(files)} photographs of {lens['w']}x{lens['h']}, "
            f"{len(capture.points):,} points, {capture.error:.2f} pixels off on average"
        )
        print(
            f"focal length {lens['fl_x']:.1f} x {lens['fl_y']:.1f}, centre {lens['cx']:.1f}, {lens['cy']:.1f} pixels, "
            f"distortion {lens['k1']:.4f} {lens['k2']:.4f} {lens['p1']:.4f} {lens['p2']:.4f}{shared}"
        )
        if capture.left_out:
            print(f"left out, as they share too little with the others: {', '.join(capture.left_out)}")
        print(f"look at {self.output / 'cameras.png'}, then: ns-train eugen-zipnerf-small --data {self.output}")


def _view_counts(scene: SceneConfig) -> str:
    counts = ", ".join(f"{split} {count}" for split, count in scene.counts.items())
    return f"{counts} views of {scene.size[0]}x{scene.size[1]}"


COMMANDS = {
    "scene": SceneCommand,
    "dynamic": DynamicCommand,
    "room": RoomCommand,
    "fetch": FetchCommand,
    "check": CheckCommand,
    "photos": PhotosCommand,
}


def _download_errors() -> tuple[type[BaseException], ...]:
    """What nerfstudio's downloads raise: network, disk, external programs, archives that are none.

    It asserts what an archive holds, and ends the program where an external command fails.
    """
    from gdown import exceptions

    own = tuple(
        item for item in vars(exceptions).values() if isinstance(item, type) and issubclass(item, Exception)
    )  # fmt: skip
    others = (OSError, subprocess.SubprocessError, zipfile.BadZipFile, tarfile.TarError, EOFError, AssertionError)
    return (*own, *others, SystemExit)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point; `args` are those of the command line by default."""
    run_cli(lambda: parse(COMMANDS, "eugen-data", args, __doc__).run())


if __name__ == "__main__":
    main()
