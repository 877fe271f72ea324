#!/usr/bin/env python
"""Makes golden runs: tiny trained runs and bundles in tests/golden, which every later version has to load.

python scripts/golden_runs.py                    # those that are missing, as for a new method
python scripts/golden_runs.py --replace NAME     # trains NAME anew: what the old one promised is gone
python scripts/golden_runs.py --record NAME      # keeps the run, stores what this version and platform make of it

Every setting that matters is named, so that a preset's defaults may change. Lists the sizes of what is there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")  # before torch is imported, as the tests have it

from golden_outputs import (  # noqa: E402
    GOLDEN,
    differences,
    golden_bundles,
    golden_runs,
    outputs_of,
    outputs_of_bundle,
    store,
    stored,
)

EVERY = """--output-dir runs --timestamp golden --vis tensorboard --machine.device-type cpu --machine.seed 0
    --max-num-iterations 40 --mixed-precision False --logging.local-writer.enable False --logging.profiler none
    --pipeline.datamanager.train-num-rays-per-batch 64 --pipeline.datamanager.eval-num-rays-per-batch 64"""
ADAM = """--optimizers.GROUP.optimizer.algorithm adam --optimizers.GROUP.optimizer.lr 5e-3
    --optimizers.GROUP.scheduler.lr-final 1e-3 --optimizers.GROUP.scheduler.max-steps 40"""
MUON = """--optimizers.GROUP.optimizer.algorithm muon --optimizers.GROUP.optimizer.lr 2e-2
    --optimizers.GROUP.optimizer.adam-ratio 0.25 --optimizers.GROUP.scheduler.lr-final 1e-3
    --optimizers.GROUP.scheduler.max-steps 40"""
FACTORS = "--pipeline.model.variant eugen --pipeline.model.PART.num-features 6 --pipeline.model.PART.train-merged False"
MERGED = "--pipeline.model.variant eugen --pipeline.model.PART.num-features 6 --pipeline.model.PART.train-merged True"
NERF = """--pipeline.model.network.trunk-layers 3 --pipeline.model.network.trunk-width 16
    --pipeline.model.network.skips 2 --pipeline.model.network.head-layers 1 --pipeline.model.network.head-width 12
    --pipeline.model.network.position-frequencies 3 --pipeline.model.network.position-max-exponent 2
    --pipeline.model.network.direction-frequencies 1 --pipeline.model.num-coarse-samples 8
    --pipeline.model.num-importance-samples 8 --pipeline.model.background-color white"""
HARMONIC = """--pipeline.model.network.degree 2 --pipeline.model.network.phi identity
    --pipeline.model.network.product harmonic --pipeline.model.network.start kaiming
    --pipeline.model.network.shares 0.5 1.0"""
HULL = "--pipeline.model.occupancy hull --pipeline.model.occupancy-resolution 12"
DEFORMATION = """--pipeline.model.deformation.trunk-layers 3 --pipeline.model.deformation.trunk-width 16
    --pipeline.model.deformation.skips 2 --pipeline.model.deformation.position-frequencies 3
    --pipeline.model.deformation.position-max-exponent 2 --pipeline.model.deformation.time-frequencies 2
    --pipeline.model.deformation.time-max-exponent 1 --pipeline.model.num-coarse-samples 8
    --pipeline.model.num-importance-samples 8 --pipeline.datamanager.reveal-steps 20"""
SAMPLES = "--pipeline.model.num-proposal-samples 8 8 --pipeline.model.num-samples 8"
MIPNERF360 = """--pipeline.model.network.trunk-layers 3 --pipeline.model.network.trunk-width 16
    --pipeline.model.network.skips 2 --pipeline.model.network.bottleneck-width 8 --pipeline.model.network.head-width 12
    --pipeline.model.network.position-frequencies 3 --pipeline.model.network.layers trunk_.* head_.*
    --pipeline.model.proposal.trunk-layers 2 --pipeline.model.proposal.trunk-width 8
    --pipeline.model.proposal.position-frequencies 2"""
GRID = """--pipeline.model.network.min-resolution 8 --pipeline.model.network.max-resolution 32
    --pipeline.model.network.log2-table-size 8 --pipeline.model.network.features-per-level 2
    --pipeline.model.network.trunk-width 16 --pipeline.model.network.head-width 12"""
ZIPNERF = f"""{GRID} --pipeline.model.network.bottleneck-width 8 --pipeline.model.network.layers head_.*
    --pipeline.model.proposal.min-resolution 8 --pipeline.model.proposal.log2-table-size 8
    --pipeline.model.proposal.trunk-width 8 --pipeline.model.proposal-resolutions 16 32"""
NGP = f"""{GRID} --pipeline.model.network.bottleneck-width 0 --pipeline.model.network.layers trunk_.* head_.*
    --pipeline.model.occupancy hull --pipeline.model.grid-resolution 12 --pipeline.model.grid-interval 4
    --pipeline.model.grid-cells 64 --pipeline.model.background-color white"""
ISDF = """--pipeline.model.network.trunk-layers 3 --pipeline.model.network.trunk-width 16
    --pipeline.model.network.skips 2 --pipeline.model.network.layers trunk_[12]
    --pipeline.model.network.position-frequencies 2 --pipeline.model.network.input-scale 0.5
    --pipeline.model.num-stratified-samples 5 --pipeline.model.num-surface-samples 3 --pipeline.model.bounds normal
    --pipeline.datamanager.frame-rate 10 --pipeline.datamanager.steps-on-first 8
    --pipeline.datamanager.steps-on-frame 2 --pipeline.datamanager.steps-on-keyframe 4
    --pipeline.datamanager.check-rays 20 --optimizers.fields.optimizer.algorithm adam
    --optimizers.fields.optimizer.lr 1.3e-3 --optimizers.fields.optimizer.weight-decay 0.012"""
NERFACTO = """--pipeline.model.implementation torch --pipeline.model.num-levels 3 --pipeline.model.max-res 32
    --pipeline.model.log2-hashmap-size 8 --pipeline.model.hidden-dim 16 --pipeline.model.hidden-dim-color 16
    --pipeline.model.appearance-embed-dim 4 --pipeline.model.num-proposal-samples-per-ray 8 8
    --pipeline.model.num-nerf-samples-per-ray 8 --pipeline.model.use-same-proposal-network False
    --pipeline.datamanager.camera-res-scale-factor 1"""
PROPOSAL = """--pipeline.model.proposal-net-args-list.PART.hidden-dim 8
    --pipeline.model.proposal-net-args-list.PART.num-levels 2
    --pipeline.model.proposal-net-args-list.PART.log2-hashmap-size 8
    --pipeline.model.proposal-net-args-list.PART.max-res 32"""


def _of(settings: str, *names: str) -> str:
    """Settings of optimizer groups or of parts of the model."""
    return " ".join(settings.replace("GROUP", name).replace("PART", name) for name in names)


SCENE, DYNAMIC, ROOM, POSED_DEPTH = (
    "blender-data --data data/scene",
    "dnerf-data --data data/dynamic",
    "nerfstudio-data --data data/room",
    "eugen-rgbd --data data/room",
)
TRAINED = {
    "nerf-dense": f"eugen-nerf-small --pipeline.model.variant dense {NERF} --pipeline.model.occupancy none "
    f"{_of(ADAM, 'fields')} {SCENE}",
    "nerf-factors": f"eugen-nerf-small {_of(FACTORS, 'network')} {NERF} {HULL} {_of(ADAM, 'fields')} {SCENE}",
    "nerf-merged": f"eugen-nerf-small {_of(MERGED, 'network')} {NERF} {HULL} {_of(MUON, 'fields')} {SCENE}",
    "nerf-harmonic": f"eugen-nerf-small {_of(MERGED, 'network')} {HARMONIC} {NERF} {HULL} "
    f"{_of(MUON, 'fields')} {SCENE}",
    "mipnerf360-merged": f"eugen-mipnerf360-small {_of(MERGED, 'network', 'proposal')} {MIPNERF360} {SAMPLES} "
    f"--pipeline.model.proposal-variant eugen {_of(MUON, 'fields', 'proposal_networks')} {ROOM}",
    "zipnerf-merged": f"eugen-zipnerf-small {_of(MERGED, 'network')} {ZIPNERF} {SAMPLES} "
    f"--pipeline.model.proposal-variant dense {_of(MUON, 'fields', 'proposal_networks')} {ROOM}",
    "ngp-merged": f"eugen-ngp-small {_of(MERGED, 'network')} {NGP} {_of(MUON, 'fields')} {_of(ADAM, 'grids')} {SCENE}",
    "dnerf-factors": f"eugen-dnerf-small {_of(FACTORS, 'network', 'deformation')} {NERF} {DEFORMATION} "
    f"{_of(ADAM, 'fields', 'temporal_distortion')} {DYNAMIC}",
    "dnerf-hash-merged": f"eugen-dnerf-hash-small {_of(MERGED, 'network', 'deformation')} {GRID} {DEFORMATION} "
    f"--pipeline.model.network.layers head_.* {_of(MUON, 'fields', 'temporal_distortion')} {DYNAMIC}",
    "isdf-factors": f"eugen-isdf-small {_of(FACTORS, 'network')} {ISDF} {POSED_DEPTH}",
}
"""What `ns-train` is given besides EVERY, by the run's name."""
TEACHERS = {"nerfacto": f"nerfacto {NERFACTO} {_of(PROPOSAL, '0', '1')} {ROOM}"}
"""Stock runs, of which a conversion alone is kept."""
CONVERTED = {
    "nerf-converted": ("nerf-dense", "--recipe rows --num-features 5 --bundle bundles/nerf-converted"),
    "nerfacto-converted": ("nerfacto", "--recipe rows --num-features 5 --layers field.*"),
}
"""The teacher, and what `eugen-distill` is given, by the run's name."""


def make_data(folder: Path) -> None:
    """Generates the data sets once; they stay, whatever becomes of the generators."""
    from eugen_nerf.data.synthetic.dynamic_scene import DynamicConfig, generate_dynamic
    from eugen_nerf.data.synthetic.scan import RoomConfig, generate_room
    from eugen_nerf.data.synthetic.static_scene import SceneConfig, generate_scene

    few = {"resolution": 16, "num_train": 6, "num_val": 1, "num_test": 1, "seed": 0}
    generate_scene(folder / "scene", SceneConfig(**few))
    generate_dynamic(folder / "dynamic", DynamicConfig(**few))
    generate_room(folder / "room", RoomConfig(num_frames=16, num_objects=3, resolution=(20, 15), seed=0))


def make(name: str, work: Path) -> None:
    """Trains or converts a run as a user does, in a folder that holds data and other golden runs."""
    if name in CONVERTED:
        teacher, words = CONVERTED[name]
        if teacher in TEACHERS and teacher not in golden_runs(work):
            train(teacher, TEACHERS[teacher], work)
        place = f"--output-dir runs --experiment-name {name} --timestamp golden --device cpu --seed 0"
        words += " --ray-fraction 1 --max-rays 1024"
        command("eugen-distill", f"--load-config {golden_runs(work)[teacher].relative_to(work)} {words} {place}", work)
    else:
        train(name, TRAINED[name], work)
    folder = golden_runs(work)[name].parent
    for path in folder.glob("events.out.*"):  # the machine's name is part of theirs
        path.unlink()
    for path in folder.glob("*.yml"):
        config = yaml.load(path.read_text(encoding="utf8"), Loader=yaml.Loader)
        if config.load_dir is not None:  # a conversion writes where its checkpoint lies on this machine
            config.load_dir = config.load_dir.relative_to(work.resolve())
            path.write_text(yaml.dump(config), encoding="utf8")


def train(name: str, words: str, work: Path) -> None:
    """Runs `ns-train`; the method comes first and the data parser last."""
    method, *settings = words.split()
    parser = next(i for i, word in enumerate(settings) if word.endswith(("-data", "-rgbd")))
    model, data = settings[:parser], settings[parser:]
    command("ns-train", f"{method} {EVERY} --experiment-name {name} {' '.join(model + data)}", work)


def command(program: str, words: str, work: Path) -> None:
    """Runs a command of this environment; it must succeed."""
    done = subprocess.run([Path(sys.executable).with_name(program), *words.split()], cwd=work, capture_output=True)
    if done.returncode:
        sys.exit(f"{program} {words}\n{done.stdout.decode()[-3000:]}{done.stderr.decode()[-3000:]}")


def record(name: str, *, new: bool) -> None:
    """Stores what this version makes of a run and of its bundle.

    Args:
        name: of the run.
        new: whether it was just made; outputs of an old one must be those stored before, within the tolerance.
    """
    from eugen_nerf.methods.runs.loading import load_run

    outputs_by_name = {name: outputs_of(load_run(golden_runs(GOLDEN)[name], device="cpu", test_mode="test").pipeline)}
    if name in golden_bundles(GOLDEN):
        outputs_by_name[f"{name}-bundle"] = outputs_of_bundle(golden_bundles(GOLDEN)[name])
    for which, outputs in outputs_by_name.items():
        path = GOLDEN / "expected" / f"{which}.safetensors"
        changed = [] if new else differences(outputs, stored(path)[0], exact=False)
        if changed:
            sys.exit(f"{which} is not what it was, so that users' runs are not either: {'; '.join(changed)}")
        path.parent.mkdir(exist_ok=True)
        store(outputs, path)


def main() -> None:
    """Makes what is missing or to be replaced, then lists sizes."""
    every = [*TRAINED, *CONVERTED]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--replace", "--record"):
        parser.add_argument(option, nargs="+", default=[], choices=every, metavar="NAME", help=", ".join(every))
    options = parser.parse_args()
    os.chdir(GOLDEN)  # the runs' configurations name their data from here
    if not (GOLDEN / "data").exists():
        make_data(GOLDEN / "data")
    todo = [name for name in every if name in options.replace or name not in golden_runs(GOLDEN)]
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        for part in ("data", "runs"):
            if (GOLDEN / part).exists():
                shutil.copytree(GOLDEN / part, work / part)
        for name in todo:
            shutil.rmtree(work / "runs" / name, ignore_errors=True)
        for name in todo:
            print(f"making {name}", flush=True)
            make(name, work)
            for part in (f"runs/{name}", f"bundles/{name}"):
                if (work / part).exists():
                    shutil.rmtree(GOLDEN / part, ignore_errors=True)
                    shutil.copytree(work / part, GOLDEN / part)
            record(name, new=True)
    for name in options.record:
        record(name, new=False)
    for folder in sorted([*GOLDEN.glob("data/*"), *GOLDEN.glob("runs/*"), *GOLDEN.glob("bundles/*")]):
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{size / 1000:6.1f} KB  {folder.relative_to(GOLDEN)}")


if __name__ == "__main__":
    main()
