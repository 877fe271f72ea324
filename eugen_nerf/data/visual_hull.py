"""The visual hull of an object photographed on a transparent background: the cells that it can occupy.

The cost is linear: each image is summed once (`alpha_table`), then each cell reads four of these sums, however many
pixels it covers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.lenses.undistortion import Lens, Model, undistorted_mask

MAX_CELLS = 1 << 20
"""Cells that are projected at once: limits the memory of fine grids."""
MARGIN_PIXELS = 1
"""Pixels around a cell's projection that must be transparent too: alpha defines an outline to one pixel."""
MODELS: dict[int, Model] = {CameraType.PERSPECTIVE.value: "perspective", CameraType.FISHEYE.value: "fisheye"}
PROGRESS_INTERVAL = 2.0
"""Seconds between progress reports."""
NO_HULL_ADVICE = "or train without it: --pipeline.model.occupancy none"


def dataset_alphas(dataset: InputDataset) -> Iterator[Tensor]:
    """Alpha channel of each image, uint8 `[H, W]`, decoded when it is needed.

    Raises:
        DataError: an image without an alpha channel.
    """
    for i in range(len(dataset)):
        image = dataset.get_numpy_image(i)
        if image.shape[-1] != 4:
            raise DataError(
                f"{dataset.image_filenames[i]} has no alpha channel, and a visual hull is carved from alpha: "
                f"use RGBA images, {NO_HULL_ADVICE}"
            )
        yield torch.from_numpy(image[..., 3].copy())


def carve(dataset: InputDataset, aabb: Tensor, resolution: int, report: Callable[[str], None]) -> Tensor:
    """The visual hull of a data set's images; reports the share of cells it keeps.

    Args:
        dataset: RGBA images with their cameras.
        aabb: box corners, `[2, 3]`.
        resolution: cells along each side.
        report: called with lines of text: progress every 2 s, and at the end the share of cells kept.

    Returns:
        As `visual_hull`.

    Raises:
        DataError: an image without alpha or of another size than its camera's, a lens that is neither perspective nor
            fisheye, or a hull that keeps no cell.
    """
    started, count = time.monotonic(), len(dataset)

    def reported() -> Iterator[Tensor]:
        last = started
        for i, alpha in enumerate(dataset_alphas(dataset)):
            if time.monotonic() - last > PROGRESS_INTERVAL:
                last = time.monotonic()
                report(f"visual hull: {i} of {count} images, {last - started:.0f} s")
            yield alpha

    cells = visual_hull(dataset.cameras, reported(), aabb, resolution)
    share = float(cells.float().mean())
    if share == 0.0:
        raise DataError(
            f"the visual hull of {count} images keeps no cell of the scene box "
            f"{[[round(value, 3) for value in corner] for corner in aabb.tolist()]}: each cell is transparent in some "
            f"image; check that the poses and the box belong to the images, {NO_HULL_ADVICE}"
        )
    report(f"visual hull: {100 * share:.3g} % of {resolution}^3 cells kept, {time.monotonic() - started:.1f} s")
    if share == 1.0:
        report(
            "warning: the visual hull carves nothing, so it saves nothing: no cell of the scene box lies where an "
            f"image is transparent; check alpha, poses and the scene box, {NO_HULL_ADVICE}"
        )
    return cells


def visual_hull(cameras: Cameras, alphas: Iterable[Tensor], aabb: Tensor, resolution: int) -> Tensor:
    """Cells that are not empty in any image.

    A cell is empty in an image when the whole cell lies in front of the camera and within the image, and every pixel of
    the smallest rectangle around its eight corners, one pixel wider on each side, is fully transparent. This is
    conservative: it removes nothing visible. A distorted or fisheye lens is undistorted first; cells outside its
    pinhole image count as unknown.

    Args:
        cameras: one for each image, OpenGL convention (looking along -z).
        alphas: `[H, W]` each, transparent where 0.
        aabb: box corners, `[2, 3]`.
        resolution: cells along each side.

    Returns:
        bool `[resolution, resolution, resolution]`, indexed x, y, z.

    Raises:
        DataError: an image of another size than its camera's, or a lens that is neither perspective nor fisheye.
    """
    low, high = aabb.double().cpu()
    edges = [low[k] + (high[k] - low[k]) * torch.arange(resolution + 1) / resolution for k in range(3)]
    kept = torch.ones(resolution, resolution, resolution, dtype=torch.bool)
    for i, alpha in enumerate(alphas):
        lens = _lens(cameras, i, (alpha.shape[1], alpha.shape[0]))
        opaque = alpha != 0
        if lens.distorted:
            opaque = torch.from_numpy(undistorted_mask(opaque.numpy(), lens, unknown=True))
        table = alpha_table(opaque)
        pose = cameras.camera_to_worlds[i].double().cpu()
        for x, y, z in _slabs(kept):
            slab = kept[x, y, z]
            around = [edge[side.start : side.stop + 1] for edge, side in zip(edges, (x, y, z), strict=True)]
            slab &= ~_known_empty(slab, around, pose, lens, table)
    return kept


def _slabs(kept: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Parts of the smallest box that holds all kept cells, each of at most about `MAX_CELLS`."""
    if not kept.any():
        return
    found = [kept.any(a).any(b).nonzero()[:, 0] for a, b in ((2, 1), (2, 0), (1, 0))]
    x, y, z = (slice(int(index[0]), int(index[-1]) + 1) for index in found)
    thickness = max(1, MAX_CELLS // ((y.stop - y.start) * (z.stop - z.start)))
    for start in range(x.start, x.stop, thickness):
        yield slice(start, min(start + thickness, x.stop)), y, z


def alpha_table(opaque: Tensor) -> Tensor:
    """Number of opaque pixels above and left of each pixel corner, int32 `[H + 1, W + 1]`, of bool `[H, W]`."""
    table = torch.zeros(opaque.shape[0] + 1, opaque.shape[1] + 1, dtype=torch.int32)
    table[1:, 1:] = opaque.int().cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    return table


def _known_empty(wanted: Tensor, edges: Sequence[Tensor], pose: Tensor, lens: Lens, table: Tensor) -> Tensor:
    """Which of the `wanted` cells between `edges` are empty in an image, bool `[X, Y, Z]`."""
    right, up, back = (_corner_coordinates(edges, pose, column) for column in range(3))
    before = back < -1e-4 * max(float(edge[-1] - edge[0]) for edge in edges)
    z = torch.where(before, -back, torch.inf)
    height, width = (side - 1 for side in table.shape)
    columns = _pixel_ranges(right / z * lens.fx + lens.cx, width)
    rows = _pixel_ranges(-up / z * lens.fy + lens.cy, height)
    inside = wanted & columns[2] & rows[2] & _join_corners(before, torch.logical_and)
    left, end, top, bottom = (index[inside] for index in (*columns[:2], *rows[:2]))
    flat, stride = table.flatten(), table.shape[1]
    above, below = top * stride, bottom * stride
    count = flat[below + end] - flat[above + end] - flat[below + left] + flat[above + left]
    empty = inside.clone()
    empty[inside] = count == 0
    return empty


def _corner_coordinates(edges: Sequence[Tensor], pose: Tensor, column: int) -> Tensor:
    """Coordinates of all corners along an axis of the camera, `[X + 1, Y + 1, Z + 1]`: a sum of one term per axis."""
    x, y, z = (((edge - pose[k, 3]) * pose[k, column]).float() for k, edge in enumerate(edges))
    return x[:, None, None] + y[:, None] + z


def _pixel_ranges(at_corners: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels that each cell covers along an image axis (first, one past the last), and whether it is inside."""
    first = _join_corners(at_corners, torch.minimum)
    last = _join_corners(at_corners, torch.maximum)
    inside = (first >= 0) & (last < size)
    begin = (first.clamp(0, size - 1).int() - MARGIN_PIXELS).clamp_(min=0)
    end = (last.clamp(0, size - 1).int() + MARGIN_PIXELS + 1).clamp_(max=size)
    return begin, end, inside


def _join_corners(corners: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Joins the eight corners of each cell: `[X + 1, Y + 1, Z + 1]` becomes `[X, Y, Z]`."""
    for axis in range(3):
        count = corners.shape[axis] - 1
        corners = join(corners.narrow(axis, 0, count), corners.narrow(axis, 1, count))
    return corners


def _lens(cameras: Cameras, index: int, size: tuple[int, int]) -> Lens:
    """The lens of a camera whose image has `size` (width, height); raises `DataError`."""
    expected = int(cameras.width[index]), int(cameras.height[index])
    if size != expected:
        raise DataError(
            f"training image {index} is {size[0]}x{size[1]} pixels where its camera has {expected[0]}x{expected[1]}: "
            f"a visual hull needs both alike; correct the data set, {NO_HULL_ADVICE}"
        )
    model = MODELS.get(int(cameras.camera_type[index]))
    if model is None:
        name = CameraType(int(cameras.camera_type[index])).name
        raise DataError(
            f"training image {index} has a lens of type {name}: a visual hull is carved from perspective and fisheye "
            f"lenses; choose such images, {NO_HULL_ADVICE}"
        )
    numbers = [float(getattr(cameras, key)[index]) for key in ("fx", "fy", "cx", "cy")]
    bent = cameras.distortion_params
    return Lens.of_nerfstudio(numbers, size, model, [] if bent is None else bent[index].tolist())
