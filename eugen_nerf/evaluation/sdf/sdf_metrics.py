"""How far a signed distance is from the truth, or from what a depth camera measured; lengths in centimetres.

Points are drawn once and serve every run. Three sets have exact distances where the room is known: the volume (points
uniform in free space that some training view observed), the surface (points uniform on it that were observed), and rays
(points between held-out cameras and the surface).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eugen_nerf.core.errors import DataError
from eugen_nerf.core.rendering.sphere_tracing import first_crossing
from eugen_nerf.data.rgbd.depth_views import DepthViews
from eugen_nerf.data.synthetic.room import Room
from eugen_nerf.evaluation.sdf.tsdf_baseline import distances_to_mesh
from eugen_nerf.surfaces.mesh import TriangleMesh

Array = NDArray[Any]
OBSERVED_MARGIN = 0.1
"""Metres behind a measured depth that count as observed, for surfaces and meshes."""
BATCHES = 200
"""Batches in which points are drawn, at most, before the search for observed ones is given up."""


class Query(Protocol):
    """A signed distance as a function of points [N, 3] in metres."""

    def distance(self, points: Array) -> Array:
        """Signed distances [N] in metres."""

    def distance_and_gradient(self, points: Array) -> tuple[Array, Array]:
        """The same with gradients [N, 3]."""


@dataclass(frozen=True)
class Points:
    """Points [N, 3] in metres with their exact signed distance [N] and gradient [N, 3]."""

    points: Array
    distance: Array
    gradient: Array


@dataclass(frozen=True)
class Rays:
    """Rays of held-out views.

    Attributes:
        origins: [N, 3] metres.
        directions: [N, 3], as long as one metre along the optical axis.
        depth: [N] metres along the optical axis to the surface: exact where the room is known, else measured.
    """

    origins: Array
    directions: Array
    depth: Array


@dataclass(frozen=True)
class Truth:
    """What every run is measured against.

    Attributes:
        rays: of held-out views.
        views: the training views, which say what was observed.
        volume, surface, along_rays: with exact distances; None where the room is not known.
        reference: points [N, 3] on the true surface that were observed, or on the fused one, for the Chamfer distance.
        room: the exact room, where known.
        fused: the fused mesh, else.
    """

    rays: Rays
    views: DepthViews
    volume: Points | None
    surface: Points | None
    along_rays: Points | None
    reference: Array
    room: Room | None
    fused: TriangleMesh | None


def room_truth(room: Room, train: DepthViews, held_out: DepthViews, protocol: Any) -> Truth:
    """Draws all points for a known room.

    Args:
        room: with its exact signed distance.
        train: views that say what was observed.
        held_out: views that rays are drawn from.
        protocol: an `SdfProtocol`: numbers of points, seed.

    Raises:
        DataError: hardly anything of the room was observed.
    """
    rng = np.random.default_rng(protocol.seed)
    low, high = np.array(room.walls.center) - room.walls.half, np.array(room.walls.center) + room.walls.half

    def in_free_space(count: int) -> Array:
        points = rng.uniform(low, high, size=(count, 3))
        points = points[room.distance(points) > 0.0]
        return points[train.observed(points)]

    def on_surface(count: int) -> Array:
        points = room.surface_points(rng, count)
        return points[train.observed(points, OBSERVED_MARGIN)]

    volume = _draw(in_free_space, protocol.points, "volume")
    surface = _draw(on_surface, protocol.chamfer_points, "surface")
    origins, directions, _ = held_out.measured(rng, protocol.rays)
    depth, _ = room.cast(origins, directions)
    share = rng.uniform(size=(protocol.rays, protocol.samples_per_ray, 1))
    along = (origins[:, None] + share * depth[:, None, None] * directions[:, None]).reshape(-1, 3)
    exact = [Points(points, *room.distance_and_gradient(points)) for points in (volume, surface, along)]
    rays = Rays(origins, directions, depth)
    return Truth(rays, train, exact[0], exact[1], exact[2], reference=surface, room=room, fused=None)


def measured_truth(fused: TriangleMesh, train: DepthViews, held_out: DepthViews, protocol: Any) -> Truth:
    """What can be compared without a known room: held-out depth images, and a mesh fused from all of them."""
    rng = np.random.default_rng(protocol.seed)
    rays = Rays(*held_out.measured(rng, protocol.rays))
    reference = fused.sample(rng, protocol.chamfer_points)
    return Truth(rays, train, None, None, None, reference=reference, room=None, fused=fused)


def sdf_metrics(sdf: Query, truth: Truth, bands: Sequence[float], reach: float) -> dict[str, Any]:
    """Errors of one signed distance; keys that need a known room are None without one.

    * `volume_l1_cm`, `surface_l1_cm`, `ray_l1_cm`: mean |distance - truth| over the three sets of points;
    * `volume_l1_bands_cm`: the first, split by true distance (None for a band without points);
    * `gradient_cosine`, `surface_gradient_cosine`: mean cosine between the gradient and the true one;
    * `eikonal`: mean | |gradient| - 1 | over the volume, or over points along the rays;
    * `depth_l1_cm`, `depth_median_cm`: of the first zero crossing along held-out rays, along the optical axis, over the
      rays that have one; `depth_hits`: their share;
    * `heldout_l1_cm`: mean |distance| at the surface points of those rays, where it should be 0.

    Args:
        sdf: to be measured.
        truth: from `room_truth` or `measured_truth`.
        bands: bounds of the bands of true distance, metres, rising.
        reach: metres along a ray within which a surface is looked for.
    """
    rays = truth.rays
    at_surface = rays.origins + rays.depth[:, None] * rays.directions
    result: dict[str, Any] = {**_depth_errors(sdf, rays, reach)}
    result["heldout_l1_cm"] = 100.0 * _mean(np.abs(sdf.distance(at_surface)))
    if truth.volume is None or truth.surface is None or truth.along_rays is None:
        halfway = rays.origins + 0.5 * rays.depth[:, None] * rays.directions
        result["eikonal"] = _eikonal(sdf.distance_and_gradient(halfway)[1])
        return {**dict.fromkeys(EXACT_KEYS), **result}
    distance, gradient = sdf.distance_and_gradient(truth.volume.points)
    error = np.abs(distance - truth.volume.distance)
    edges = [0.0, *bands, np.inf]
    result["volume_l1_cm"] = 100.0 * _mean(error)
    result["volume_l1_bands_cm"] = {
        band_name(low, high): 100.0 * _mean(error[chosen]) if chosen.any() else None
        for low, high in pairwise(edges)
        for chosen in [(truth.volume.distance >= low) & (truth.volume.distance < high)]
    }
    result["eikonal"] = _eikonal(gradient)
    result["gradient_cosine"] = _cosine(gradient, truth.volume.gradient)
    distance, gradient = sdf.distance_and_gradient(truth.surface.points)
    result["surface_l1_cm"] = 100.0 * _mean(np.abs(distance - truth.surface.distance))
    result["surface_gradient_cosine"] = _cosine(gradient, truth.surface.gradient)
    along = truth.along_rays
    result["ray_l1_cm"] = 100.0 * _mean(np.abs(sdf.distance(along.points) - along.distance))
    return result


EXACT_KEYS = (
    *("volume_l1_cm", "volume_l1_bands_cm", "surface_l1_cm", "ray_l1_cm"),
    *("gradient_cosine", "surface_gradient_cosine"),
)


def chamfer(mesh: TriangleMesh, truth: Truth, rng: np.random.Generator, count: int) -> dict[str, Any]:
    """Distances between a mesh and the reference surface, in centimetres.

    `accuracy_cm`: mean distance of points on the observed part of the mesh to the reference; `completion_cm`: of
    reference points to the mesh; `chamfer_cm`: their mean. Distances are to the nearest point of a surface, not of a
    point set, so they do not depend on how densely it is sampled.

    Args:
        mesh: in metres; what no training view observed is left out.
        truth: the reference.
        rng: of the points on the mesh.
        count: number of them.

    Returns None for all three where nothing of the mesh was observed.
    """
    observed = mesh.cropped(truth.views.observed(mesh.vertices, OBSERVED_MARGIN))
    if not len(observed.faces):
        return dict.fromkeys(("accuracy_cm", "completion_cm", "chamfer_cm"))
    points = observed.sample(rng, count)
    if truth.room is not None:
        there = np.abs(truth.room.distance(points))
    else:
        assert truth.fused is not None
        there = distances_to_mesh(points, truth.fused)
    accuracy, completion = 100.0 * _mean(there), 100.0 * _mean(distances_to_mesh(truth.reference, observed))
    return {"accuracy_cm": accuracy, "completion_cm": completion, "chamfer_cm": 0.5 * (accuracy + completion)}


def band_name(low: float, high: float) -> str:
    """Such as "10-50 cm" or "> 50 cm", from metres."""
    return f"> {100 * low:g} cm" if np.isinf(high) else f"{100 * low:g}-{100 * high:g} cm"


def _draw(draw: Any, count: int, what: str) -> Array:
    """Enough points [count, 3], from as many batches as it takes."""
    batches: list[Array] = []
    missing = count
    for _ in range(BATCHES):
        points = draw(max(1024, missing))[:missing]
        batches.append(points)
        missing -= len(points)
        if missing == 0:
            return np.concatenate(batches)
    raise DataError(
        f"a training view observed only {count - missing} of {count} points of the {what}: the scan hardly looks "
        "at the room; make a longer one, or lower the number of points"
    )


def _depth_errors(sdf: Query, rays: Rays, reach: float) -> dict[str, Any]:
    """Errors of the depth of the first crossing."""
    length = np.linalg.norm(rays.directions, axis=-1)

    def distance(points: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(sdf.distance(points.numpy()), dtype=np.float32))

    origins = torch.from_numpy(rays.origins.astype(np.float32))
    directions = torch.from_numpy((rays.directions / length[:, None]).astype(np.float32))
    near = torch.zeros(len(origins))
    with torch.no_grad():
        t, hit = first_crossing(distance, origins, directions, near, torch.full_like(near, reach), max_steps=512)
    error = np.abs(t.numpy() / length - rays.depth)[hit.numpy()]
    return {
        "depth_l1_cm": 100.0 * _mean(error) if len(error) else None,
        "depth_median_cm": 100.0 * float(np.median(error)) if len(error) else None,
        "depth_hits": float(hit.float().mean()),
    }


def _mean(values: Array) -> float:
    return float(np.mean(values, dtype=np.float64))


def _eikonal(gradient: Array) -> float:
    return _mean(np.abs(np.linalg.norm(gradient, axis=-1) - 1.0))


def _cosine(gradient: Array, truth: Array) -> float:
    norms = np.linalg.norm(gradient, axis=-1) * np.linalg.norm(truth, axis=-1)
    return _mean((gradient * truth).sum(-1) / np.maximum(norms, 1e-12))
