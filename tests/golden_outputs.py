"""What golden runs and bundles give: rendered or evaluated, stored beside the platform that it is of, compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from nerfstudio.pipelines.base_pipeline import Pipeline
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from eugen_nerf.core import load_bundle
from eugen_nerf.core.encodings.compiled_grid import COMPILES
from eugen_nerf.evaluation.costs.resources import environment
from eugen_nerf.surfaces.distance_field import SignedDistance

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 2e-5
"""Largest difference from what another platform stored, relative where a value is beyond 1: sums in another order
change the last bits of float32, and samples that are drawn from weights move with them."""
MEDIANS = ("depth",)
"""Outputs that are the distance of one sample: where two are nearly the median, the last bits choose."""
SHARE_OF_MEDIANS = 0.02
"""Share of a view's pixels that may have chosen another sample."""
POINTS = torch.cartesian_prod(*[torch.tensor([-0.75, -0.3, 0.1, 0.6])] * 3)
"""Where bundles and signed distances are evaluated, float32 `[64, 3]`."""
RAISED = torch.tensor([0.0, 0.0, 1.2])
"""From a room's origin, which lies on its floor, to the middle of its air, metres."""
DIRECTION = torch.tensor([0.6, 0.0, -0.8])


def golden_runs(folder: Path) -> dict[str, Path]:
    """The `config.yml` of each run by name; `folder` holds `runs/`."""
    return {path.parents[2].name: path for path in sorted(folder.glob("runs/*/*/golden/config.yml"))}


def golden_bundles(folder: Path) -> dict[str, Path]:
    """The folder of each bundle by name; `folder` holds `bundles/`."""
    return {path.name: path for path in sorted(folder.glob("bundles/*"))}


@torch.no_grad()
def outputs_of(pipeline: Pipeline) -> dict[str, Tensor]:
    """Colour, depth and opacity `[h, w, c]` of a run's first evaluation view, float32 on the CPU.

    A map of signed distances has no colours: of it, the distance `[64]` at `POINTS` in metres.
    """
    model = pipeline.model.eval()
    if hasattr(getattr(model, "field", None), "distance"):
        return {"distance": SignedDistance.of_model(model).distance(POINTS + RAISED)}
    outputs = model.get_outputs_for_camera(pipeline.datamanager.eval_dataset.cameras[0:1])
    return {name: outputs[name].cpu().contiguous() for name in ("rgb", "depth", "accumulation")}


@torch.no_grad()
def outputs_of_bundle(path: Path) -> dict[str, Tensor]:
    """Density `[64, 1]` and colour `[64, 3]` of a bundle at `POINTS`, looking along `DIRECTION`.

    Of one that has a camera its image `[h, w, 3]` too.
    """
    field = load_bundle(path)
    density, colour = field(POINTS, DIRECTION)
    outputs = {"density": density, "colour": colour}
    if field.cameras:
        outputs["image"] = field.render(field.cameras[0]).colour
    return outputs


def fingerprint() -> dict[str, str]:
    """What decides about the last bits here: the processor, its instructions, torch, and a few products' own bits.

    Names alone do not say it: variables of the environment limit instructions, and virtual machines hide models.
    """
    facts = environment("cpu", ["float32"])
    values = torch.linspace(-2.0, 2.0, 64 * 96).reshape(64, 96)
    probed = [values @ values.mT, values[:, :27] @ values[:16, :27].mT, values.exp(), values.sin(), values.cumsum(-1)]
    bits = hashlib.sha256(b"".join(v.numpy().tobytes() for v in probed)).hexdigest()
    named = {name: str(facts[name]) for name in ("device_name", "torch", "threads")}
    if not COMPILES:
        named["grids"] = "PyTorch's"  # not those of numba's code, which rounds alike everywhere
    return {**named, "instructions": torch.backends.cpu.get_cpu_capability(), "bits": bits[:16]}


def store(outputs: Mapping[str, Tensor], path: Path) -> None:
    """Writes outputs with this platform's fingerprint."""
    save_file(dict(outputs), str(path), fingerprint())


def stored(path: Path) -> tuple[dict[str, Tensor], bool]:
    """What `store` wrote, and whether this platform has the fingerprint of the one that wrote it."""
    with safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() == fingerprint()  # noqa: SIM118


def differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, exact: bool) -> list[str]:
    """One text for each output that is not as expected: bit for bit, or else within `TOLERANCE`."""
    texts = [f"{name} is in one alone" for name in sorted(found.keys() ^ expected.keys())]
    for name in sorted(found.keys() & expected.keys()):
        now, then = found[name], expected[name]
        if now.shape != then.shape or now.dtype != then.dtype:
            texts.append(f"{name} is {now.dtype} {list(now.shape)}, was {then.dtype} {list(then.shape)}")
            continue
        off = (now - then).abs()
        wrong = now != then if exact else ~(off <= TOLERANCE * then.abs().clamp(min=1.0))
        allowed = SHARE_OF_MEDIANS * wrong.numel() if name in MEDIANS and not exact else 0
        if wrong.sum() > allowed:
            texts.append(f"{name} differs at {int(wrong.sum())} of {wrong.numel()}, by up to {float(off.max()):.3g}")
    return texts
