"""Every image set among the shared faulty inputs, by each family of methods that reads such data: right, or one line.

The sets show a ray-traced sphere on a checker floor, so the colour of every ray is known. They are no part of the
repository; `pytest -rP` prints what each gives.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from eugen_nerf.core.errors import DataError

Array = NDArray[np.float64]
INPUTS = Path(__file__).resolve().parents[3] / "shared/faults/inputs"
pytestmark = pytest.mark.skipif(not INPUTS.is_dir(), reason=f"the shared faulty inputs are not at {INPUTS}")

UNBOUNDED = ("eugen-zipnerf-small", "eugen-mipnerf360-small")
BOUNDED = ("eugen-nerf-small",)
OBJECT = {"rgba", "h_big"} | {
    f"b_{name}" for name in ("blendernerf", "jpg", "ok", "shift", "sizes", "sizes_val", "far")
}
"""Sets that show the sphere alone, on transparent or white."""
OFFSETS = {"utm_png": (441_547.5, 5_121_946.5, 2_345.0)}
UNITS = {"b_far": 25.0}
"""Sets whose scene is written so many times larger than the truth below."""
PNG, JPEG = 1e-3, 0.06
"""Mean error of colours at most. JPEG's is that of the stored pixels themselves: `test_the_rest_is_jpeg`."""

READ: dict[str, tuple[tuple[str, ...], float]] = {
    "angle_only": (UNBOUNDED, JPEG),
    "backslash": (UNBOUNDED, JPEG),
    "fisheye_perframe": (UNBOUNDED, JPEG),
    "h_big": (UNBOUNDED, PNG),
    "noext": (UNBOUNDED, JPEG),
    "nowh": (UNBOUNDED, JPEG),
    "pose34": (UNBOUNDED, JPEG),
    "rgba": (UNBOUNDED, PNG),
    "round_up": (UNBOUNDED, JPEG),
    "sizes_pf_mask": (UNBOUNDED, 0.08),
    "splits_notest": (UNBOUNDED, JPEG),
    "splits_train_only": (UNBOUNDED, JPEG),
    "utm_png": (UNBOUNDED, PNG),
    "c_big": (UNBOUNDED, JPEG),
    "c_full": (UNBOUNDED, JPEG),
    "c_nopoints": (UNBOUNDED, JPEG),
    "c_round": (UNBOUNDED, JPEG),
    "c_sparse0": (UNBOUNDED, JPEG),
    "c_thin": (UNBOUNDED, JPEG),
    "b_far": (UNBOUNDED, PNG),
    "b_blendernerf": (BOUNDED + UNBOUNDED, PNG),
    "b_jpg": (BOUNDED + UNBOUNDED, JPEG),
    "b_ok": (BOUNDED + UNBOUNDED, PNG),
    "b_shift": (BOUNDED + UNBOUNDED, PNG),
    "b_sizes": (BOUNDED + UNBOUNDED, PNG),
    "b_sizes_val": (BOUNDED + UNBOUNDED, PNG),
}
"""Sets that are read: by which methods, and the error allowed."""
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "half": (UNBOUNDED, "is 64x48 pixels where its camera is 128x96"),
    "twice": (UNBOUNDED, "is 128x96 pixels where its camera is 64x48"),
    "offby1": (UNBOUNDED, "is 64x48 pixels where its camera is 65x49"),
    "sizes": (UNBOUNDED, "is 32x24 pixels where its camera is 64x48"),
    "mask_black": (UNBOUNDED, "masks/0.png' of the train split is black everywhere"),
    "mask_damaged": (UNBOUNDED, "masks/2.png' is damaged"),
    "mask_large": (UNBOUNDED, "masks/0.png' of the train split is 128x96 pixels"),
    "mask_small": (UNBOUNDED, "masks/0.png' of the train split is 32x24 pixels"),
    "mask_some": (UNBOUNDED, "6 of 12 images have no mask"),
    "nan": (UNBOUNDED, "the camera pose in frame 4 of"),
    "nine": (UNBOUNDED, "--train-split-fraction 0.88"),
    "nojson": (UNBOUNDED + BOUNDED, "has no camera poses"),
    "one": (UNBOUNDED, "the only camera stands at one place"),
    "rgbamix": (UNBOUNDED, "frame_00005.png"),
    "sdfstudio": (UNBOUNDED + BOUNDED, "write sdfstudio-data"),
    "b_bn_noval": (BOUNDED + UNBOUNDED, "3 of 3 image files"),
    "b_far": (BOUNDED, "the far plane is at 6"),
    "h_big": (BOUNDED, "write nerfstudio-data"),
    "c_sparse0": (BOUNDED, "the format of colmap"),
}
"""Sets that end in one line: for which methods, and a part of the line."""


def truth(origins: Array, directions: Array, *, floor: bool) -> Array:
    """Colours of rays: a striped sphere of radius 0.8, and a checker floor under a sky, or white."""
    directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    colour = np.tile([0.6, 0.8, 1.0] if floor else [1.0] * 3, (len(origins), 1))
    along = (origins * directions).sum(-1)
    inside = along**2 - (origins**2).sum(-1) + 0.64
    reach = np.where(inside > 0, -along - np.sqrt(np.maximum(inside, 0)), np.inf)
    reach = np.where(reach > 1e-3, reach, np.inf)
    if floor:
        with np.errstate(divide="ignore", invalid="ignore"):
            down = (-0.8 - origins[:, 2]) / directions[:, 2]
        spot = origins + directions * np.where(np.isfinite(down), down, 0.0)[:, None]
        seen = (down > 1e-3) & (down < reach) & (np.abs(spot[:, :2]) < 4).all(-1)
        even = np.floor(spot[:, :2]).sum(-1) % 2 == 0
        colour[seen] = np.where(even[seen, None], [0.9, 0.3, 0.2], [0.2, 0.4, 0.8])
    hit = np.isfinite(reach)
    normal = (origins[hit] + directions[hit] * reach[hit, None]) / 0.8
    dark = np.floor(np.arctan2(normal[:, 1], normal[:, 0]) * 4) % 2 != 0
    colour[hit] = (0.5 + 0.5 * normal) * np.where(dark, 0.4, 1.0)[:, None]
    return colour


def load(name: str, method: str) -> Any:
    """The data manager of a method's preset for a set; its bounded models look whether they would see anything."""
    from copy import deepcopy

    from nerfstudio.configs.method_configs import all_methods

    from eugen_nerf.methods.training.plane_check import check_planes

    settings = deepcopy(all_methods[method]).pipeline
    config = settings.datamanager
    config.data = INPUTS / name
    config.train_num_rays_per_batch = 1024
    manager = config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)
    if method in BOUNDED:
        check_planes(manager.train_dataset.cameras, **_planes(settings.model.collider_params))
    return manager


def _planes(params: dict[str, float]) -> dict[str, float]:
    return {"near": params["near_plane"], "far": params["far_plane"]}


def error(name: str, manager: Any) -> float:
    """Mean error of 6144 rays' colours in the data set's own coordinates."""
    outputs = manager.train_dataparser_outputs
    transform = np.eye(4)
    transform[:3] = outputs.dataparser_transform.double().numpy()
    back, offset = np.linalg.inv(transform), np.array(OFFSETS.get(name, (0.0, 0.0, 0.0)))
    scale = float(outputs.dataparser_scale)
    errors = []
    for step in range(6):
        rays, batch = manager.next_train(step)
        origins = rays.origins.double().numpy() / scale @ back[:3, :3].T + back[:3, 3] - offset
        origins /= UNITS.get(name, 1.0)
        directions = rays.directions.double().numpy() @ back[:3, :3].T
        image = batch["image"].double().numpy()
        if image.shape[-1] == 4:
            image = image[:, :3] * image[:, 3:] + 1 - image[:, 3:]
        errors.append(np.abs(image - truth(origins, directions, floor=name not in OBJECT)).mean())
    return float(np.mean(errors))


@pytest.mark.parametrize(("name", "method"), [(n, m) for n, (methods, _) in READ.items() for m in methods])
def test_read_rightly(name: str, method: str) -> None:
    torch.manual_seed(0)
    found = error(name, load(name, method))
    print(f"{name:18} {method:24} colour error {found:.4f}")
    assert found <= READ[name][1]


@pytest.mark.parametrize(("name", "method"), [(n, m) for n, (methods, _) in REFUSED.items() for m in methods])
def test_refused_in_one_line(name: str, method: str) -> None:
    with pytest.raises(DataError) as caught:
        load(name, method)
    print(f"{name:18} {method:24} {caught.value}")
    assert "\n" not in str(caught.value)
    assert REFUSED[name][1] in str(caught.value)


@pytest.mark.parametrize("name", ["fisheye_perframe", "sizes_pf_mask"])
def test_the_rest_is_jpeg(name: str) -> None:
    """Decoded pixels miss the truth of their own rays as far as those that are trained on: no ray is off."""
    document = json.loads((INPUTS / name / "transforms.json").read_text())
    errors = []
    for frame in document["frames"]:
        lens, pose = document | frame, np.array(frame["transform_matrix"])
        pixels = np.asarray(Image.open(INPUTS / name / frame["file_path"]).convert("RGB")) / 255
        height, width = pixels.shape[:2]
        x, y = np.meshgrid(np.arange(width) + 0.5 - lens["cx"], np.arange(height) + 0.5 - lens["cy"])
        x, y = x / lens["fl_x"], -y / lens["fl_y"]
        angle = np.hypot(x, y)
        bent = lens["camera_model"] == "OPENCV_FISHEYE"
        scale, back = (np.sinc(angle / np.pi), np.cos(angle)) if bent else (np.ones_like(x), np.ones_like(x))
        directions = np.stack([x * scale, y * scale, -back], axis=-1).reshape(-1, 3) @ pose[:3, :3].T
        shown = truth(np.broadcast_to(pose[:3, 3], directions.shape), directions, floor=True)
        off = np.abs(pixels.reshape(-1, 3) - shown)
        if "mask_path" in frame:
            off = off[np.asarray(Image.open(INPUTS / name / frame["mask_path"]).convert("L")).reshape(-1) > 0]
        errors.append(off.mean())
    trained = error(name, load(name, UNBOUNDED[0]))
    print(f"{name:18} stored pixels {np.mean(errors):.4f}, trained on {trained:.4f}")
    assert abs(trained - np.mean(errors)) < 0.01


FAMILIES = (
    "eugen-nerf-small",
    "eugen-mipnerf360-small",
    "eugen-zipnerf-small",
    "eugen-dnerf-small",
    "eugen-isdf-small",
)


@pytest.mark.parametrize("method", FAMILIES)
def test_every_other_set_is_right_or_one_line(method: str) -> None:
    """What is in no table above: RGB-D sets as photographs, photographs for D-NeRF and iSDF, ..."""
    for path in sorted(p for p in INPUTS.iterdir() if p.is_dir()):
        name = path.name
        if method in READ.get(name, ((), 0))[0] or method in REFUSED.get(name, ((), ""))[0]:
            continue
        found = 0.0
        try:
            manager = load(name, method)
            line = "depth is read"  # test_rgbd_faults.py compares its distances with the truth
            if not method.startswith("eugen-isdf"):
                found = error(name, manager)
                line = f"colour error {found:.4f}"
        except DataError as refused:
            line = str(refused)
        print(f"{name:18} {method:24} {line}")
        assert "\n" not in line
        assert found <= PNG


def test_every_image_set_is_in_the_table() -> None:
    image_sets = {p.name for p in INPUTS.iterdir() if p.is_dir() and p.name[:2] not in ("t_", "x_", "s_")}
    assert image_sets == READ.keys() | REFUSED.keys()
