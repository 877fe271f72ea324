#!/usr/bin/env python
"""Packs what a machine with a GPU and no network needs beside the checkout, and prints the commands to run there.

    python scripts/gpu_pack.py --data ../shared/data --weights ../shared/torch

The machine has Python 3.12 with torch 2.11, torchvision, torchmetrics and scipy. `.gpu/` gets folders of wheels with
nerfstudio and what it imports, small data sets, and the weights of LPIPS; each folder is small enough to be carried in
one call with the checkout. docs/guides/gpu.md says how the calls go.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
FOLDER_LIMIT, CALL_LIMIT = 48 * MIB, 64 * MIB
COMMAND_LIMIT = 2000
"""Characters of one command."""
PYTHON = "3.12"
PACKAGES = (
    *("nerfstudio==1.1.5", "nerfacc==0.5.2", "gsplat==1.4.0", "viser==0.2.7", "opencv-python-headless==4.10.0.84"),
    *("absl-py", "appdirs", "attrs", "certifi", "charset-normalizer", "contourpy", "cycler", "docstring-parser"),
    *("fonttools", "fpsample", "grpcio", "idna", "imageio", "jaxtyping", "kiwisolver", "lazy-loader", "markdown"),
    *("markdown-it-py", "matplotlib", "mdurl", "mediapy", "msgpack", "msgpack-numpy", "msgspec", "pathos", "dill"),
    *("multiprocess", "pox", "ppft", "protobuf", "pygments", "pyparsing", "pyquaternion", "python-dateutil"),
    *("pytorch-msssim", "pyyaml", "rawpy", "requests", "rich", "safetensors", "scikit-image", "shtab", "simplejson"),
    *("six", "splines==0.3.0", "tensorboard", "tensorboard-data-server", "tensorly", "tifffile", "tqdm", "trimesh"),
    *("typeguard", "tyro", "urllib3", "wadler-lindig", "websockets", "werkzeug", "yourdfpy"),
)
"""What nerfstudio imports beyond torch and its own; tensorboard and protobuf are of one time, whatever it pins."""
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
)
LEGO = {"train": 60, "val": 2, "test": 5}
"""Views of the Blender set that are carried, evenly spaced."""
KITCHEN = 50
"""Frames of the RGB-D sequence, the first ones."""
WEIGHTS = Path("hub") / "checkpoints" / "alexnet-owt-7be5be79.pth"
"""LPIPS's network, below $TORCH_HOME."""
MINUTES = (9.0, 3.0)
"""Of the two calls that measure, of 12 in all: a call ends after 10."""


def main() -> None:
    """Fills the folder and prints sizes and commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of lego, fox, garden, dnerf-lego-tiny, ...")
    parser.add_argument("--weights", type=Path, required=True, help="a $TORCH_HOME with LPIPS's AlexNet")
    parser.add_argument("--output", type=Path, default=ROOT / ".gpu", help="a folder that git ignores")
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    pack_data(options.data, options.output / "data")
    target = options.output / "torch" / WEIGHTS
    target.parent.mkdir(parents=True)
    shutil.copyfile(options.weights / WEIGHTS, target)
    folders = pack_wheels(options.output)
    tree = size_of_tree()
    print(f"the checkout itself: {tree / MIB:.1f} MiB")
    for folder in sorted(path for path in options.output.iterdir() if path.is_dir()):
        print(f"{folder.name}: {size_of(folder) / MIB:.1f} MiB")
    for number, (carried, command) in enumerate(calls(folders), start=1):
        size = tree + sum(size_of(options.output.parent / name) for name in carried)
        print(f"\ncall {number}: carries {', '.join(carried) or 'the checkout'}: {size / MIB:.1f} MiB\n{command}")
        if size > CALL_LIMIT:
            sys.exit(f"call {number} carries more than {CALL_LIMIT // MIB} MiB: take fewer views (LEGO, KITCHEN)")


def calls(wheel_folders: Sequence[str]) -> list[tuple[list[str], str]]:
    """The folders that each call carries, and its command; the first ones unpack, the last two measure."""
    commands = [
        (
            [f".gpu/{name}"],
            "python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade "
            f"--target /tmp/site .gpu/{name}/*.whl",
        )
        for name in wheel_folders
    ]
    keep = "mkdir -p /tmp/gpu && cp -r .gpu/data .gpu/torch /tmp/gpu/ && "
    for number, minutes in enumerate(MINUTES):
        carried = [".gpu/data", ".gpu/torch"] if number == 0 else []
        command = (
            f"{keep if carried else ''}PYTHONPATH=/tmp/site python3 scripts/gpu_day.py "
            f"--minutes {sum(MINUTES):g} --call {minutes:g} "
            "--data /tmp/gpu/data --work /tmp/gpu/work --output $OUT"
        )
        commands.append((carried, command))
    return commands


def pack_wheels(output: Path) -> list[str]:
    """Downloads the wheels and divides them among folders `wheels-1`, ...; returns the folders' names."""
    everything = output / "all"
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    words = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    words += ["--python-version", PYTHON, "--implementation", "cp", *platforms, "-d", str(everything), *PACKAGES]
    subprocess.run(words, check=True)
    names = []
    for number, wheels in enumerate(
        divided({p: p.stat().st_size for p in everything.iterdir()}, FOLDER_LIMIT), start=1
    ):
        names.append(f"wheels-{number}")
        (output / names[-1]).mkdir()
        for wheel in wheels:
            wheel.rename(output / names[-1] / wheel.name)
    everything.rmdir()
    return names


def divided(sizes: dict[Path, int], limit: int) -> list[list[Path]]:
    """Files in groups of at most `limit` bytes, the largest first into the first group with room.

    Raises:
        ValueError: a file that is larger.
    """
    groups: list[list[Path]] = []
    room: list[int] = []
    for path in sorted(sizes, key=lambda path: (-sizes[path], path)):
        if sizes[path] > limit:
            raise ValueError(f"{path.name} has {sizes[path]} bytes; at most {limit} can be carried in one folder")
        place = next((i for i, left in enumerate(room) if left >= sizes[path]), len(groups))
        if place == len(groups):
            groups.append([])
            room.append(limit)
        groups[place].append(path)
        room[place] -= sizes[path]
    return groups


def pack_data(source: Path, target: Path) -> None:
    """Copies the data sets: some views of lego, the first frames of the kitchen, the others whole."""
    for name in ("fox", "dnerf-lego-tiny"):
        shutil.copytree(source / name, target / name)
    shutil.copytree(source / "garden", target / "garden", ignore=shutil.ignore_patterns("*.ply"))
    pack_views(source / "lego", target / "lego", LEGO)
    kitchen = source / "7scenes-kitchen"
    (target / kitchen.name).mkdir()
    frames = sorted({path.name.split(".")[0] for path in kitchen.glob("frame-*")})[:KITCHEN]
    for path in kitchen.iterdir():
        if not path.name.startswith("frame-") or path.name.split(".")[0] in frames:
            shutil.copyfile(path, target / kitchen.name / path.name)


def pack_views(source: Path, target: Path, counts: dict[str, int]) -> None:
    """Copies evenly spaced views of each split of a Blender-format data set."""
    for split, count in counts.items():
        content = json.loads((source / f"transforms_{split}.json").read_text(encoding="utf8"))
        frames, count = content["frames"], min(count, len(content["frames"]))
        content["frames"] = [frames[i * len(frames) // count] for i in range(count)]
        for frame in content["frames"]:
            image = Path(f"{frame['file_path']}.png")
            (target / image).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / image, target / image)
        (target / f"transforms_{split}.json").write_text(json.dumps(content), encoding="utf8")


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def size_of_tree() -> int:
    """Bytes of the checkout's own files."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return sum((ROOT / name).stat().st_size for name in done.stdout.split("\0") if name and (ROOT / name).is_file())


if __name__ == "__main__":
    main()
