"""Checks, before the first step, whether cameras look at anything between a model's near and far plane."""

from __future__ import annotations

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.engine.callbacks import TrainingCallbackAttributes
from nerfstudio.model_components.scene_colliders import NearFarCollider
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.manager import EugenDataManager

PARALLEL = 0.02
"""Smallest eigenvalue of the axes' mean projection with which they still meet somewhere."""
NEARNESS = 0.3
"""How far optical axes may pass by the point where they meet, in distances from the cameras to it."""
PLANES = "--pipeline.model.collider-params near_plane ... far_plane ..."


def meeting_point(cameras: Cameras) -> Tensor | None:
    """Signed depths [N] at which optical axes pass the point nearest to all of them; None where they do not meet.

    Arguments:
        cameras: [N]; panoramas have no axis.
    """
    if bool((cameras.camera_type == CameraType.EQUIRECTANGULAR.value).any()):
        return None
    poses = cameras.camera_to_worlds.double().cpu()
    centres, axes = poses[:, :3, 3], -poses[:, :3, 2]
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    mean = across.mean(dim=0)
    if float(torch.linalg.eigvalsh(mean)[0]) < PARALLEL:
        return None
    point = torch.linalg.solve(mean, (across @ centres[:, :, None]).mean(dim=0)[:, 0])
    depths = ((point - centres) * axes).sum(dim=-1)
    passed = (across @ (point - centres)[:, :, None])[:, :, 0].norm(dim=-1)
    return depths if bool(passed.median() <= NEARNESS * depths.abs().median()) else None


def check_planes(cameras: Cameras, near: float, far: float, option: str = PLANES) -> None:
    """Compares what cameras look at with the planes that samples lie between.

    Arguments:
        cameras: of the training images.
        near, far: distances of the planes.
        option: that moves them.

    Raises `DataError` where at least half of the cameras look at a point before the near or behind the far plane. Says
    where cameras look away from the point where their axes meet.
    """
    depths = meeting_point(cameras)
    if depths is None:
        return
    middle = float(depths.median())
    if middle < 0:
        CONSOLE.print(
            "cameras look away from the point where their axes meet: right for a room photographed from its middle; "
            "for an object, the poses are in OpenCV's convention, and the second and third column must be negated",
            markup=False,
        )
        return
    if near < middle < far:
        return
    plane = f"near plane is at {near:g}" if middle <= near else f"far plane is at {far:g}"
    factor = 0.5 * (near + far) / middle if far < 100 * near else 1.0 / middle
    raise DataError(
        f"the cameras look at a point {middle:.3g} away from them, and the {plane}, so nothing of it would be trained: "
        f"scale the scene (--scale-factor {factor:.2g} after the data parser's name, where it was 1), or move the "
        f"planes to {0.1 * middle:.3g} and {2 * middle:.3g} ({option})"
    )


def check_before_training(
    collider: nn.Module | None, attributes: TrainingCallbackAttributes, option: str = PLANES
) -> None:
    """`check_planes` of the training cameras, and a check of the images that score the run; raises `DataError`."""
    manager = getattr(attributes.pipeline, "datamanager", None)
    if not isinstance(manager, EugenDataManager):
        return
    manager.check_test_split()
    if isinstance(collider, NearFarCollider):
        check_planes(manager.train_dataset.cameras, collider.near_plane, collider.far_plane, option)
