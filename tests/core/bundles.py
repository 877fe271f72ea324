"""Small fields of every kind that a bundle can hold, made without nerfstudio."""

from __future__ import annotations

from dataclasses import replace

import torch
from oracles import randomise
from torch import Tensor

from eugen_nerf.core import (
    BundledGraph,
    DistanceBundle,
    EUGenConfig,
    FrequencyEncoding,
    HashGrid,
    NeRFShape,
    OffAxisEncoding,
    RadianceBundle,
    Replacement,
    build_variant,
)
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_grid import BundledGrid
from eugen_nerf.core.bundles.bundled_parts import Deformation, Occupancy
from eugen_nerf.core.bundles.bundled_proposals import BundledProposals
from eugen_nerf.core.bundles.bundled_scene import BundledScene, MeasuredQuality, SceneCoordinates, SceneRenderer
from eugen_nerf.core.bundles.bundled_surface import BundledSurface
from eugen_nerf.core.bundles.bundled_views import BundledView
from eugen_nerf.core.cameras.pinhole_camera import PinholeCamera
from eugen_nerf.core.choices import Product
from eugen_nerf.core.encodings.cube_encodings import CubeEncoding, SphericalEncoding
from eugen_nerf.core.encodings.point_encodings import BoxEncoding, ContractedEncoding, Encoding, PyramidEncoding
from eugen_nerf.core.marching.density_grid import DensityGrid
from eugen_nerf.core.rendering.distance_grid import DistanceGrid, build_distance_grid
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.core.rendering.proposal_renderer import ProposalRenderer
from eugen_nerf.core.rendering.surface_renderer import SurfaceRenderer

KINDS = ("frequency", "moving", "contracted", "pyramid", "box", "cube", "distance")

RENDERED = KINDS
"""Those that have a renderer: all."""


def network(
    inputs: tuple[int, ...],
    *,
    output: str = "density",
    width: int = 1,
    seed: int = 0,
    spread: float = 0.5,
    product: Product = "plain",
) -> BundledGraph:
    """A random collapsed network of degree 2 with the norm, one layer dense."""
    shape = NeRFShape(
        position_width=inputs[0],
        direction_width=inputs[1] if len(inputs) > 1 else 0,
        trunk_layers=3,
        trunk_width=8,
        skips=(2,),
        head_layers=1,
        head_width=6 if len(inputs) > 1 else 0,
        output=output,
        output_width=width,
    )
    eugen = EUGenConfig(degree=2, phi="tanh", norm=True, product=product)
    graph = build_variant(shape, "eugen", Replacement(("trunk_[12]",), (4,), eugen))
    randomise(graph, seed, spread)
    return BundledGraph(graph.collapse(), graph.input_widths)


def grid(seed: int = 0, shift: float = 0.5) -> HashGrid:
    """Three levels, the finest hashed."""
    made = HashGrid((4, 8, 16), 2, 9, seed=seed, shift=shift)
    randomise(made, seed, 0.05)
    return made.requires_grad_(False)


def _rough(made: HashGrid) -> HashGrid:
    made.table.mul_(10)  # its encoding takes them as they are
    return made


def position_encoding(kind: str) -> Encoding:
    directions = torch.nn.functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    box = torch.tensor([[-1.0, -1.5, -1.0], [1.0, 1.0, 2.0]])
    if kind == "contracted":
        return ContractedEncoding(directions, 3)
    if kind == "pyramid":
        return PyramidEncoding(grid())
    if kind == "cube":
        return CubeEncoding(_rough(grid(shift=0.0)), None)
    if kind in ("box", "moving"):
        return BoxEncoding(grid(), box)
    if kind == "distance":
        return OffAxisEncoding(torch.cat([directions.T, 2 * directions.T], dim=1), box[0], 0.8)
    return FrequencyEncoding(3, 4, 0.0, 3.0)


def make(kind: str) -> BundledField:
    """A field of one of `KINDS`; the moving one has cells too."""
    position: Encoding = position_encoding(kind)
    direction: Encoding = SphericalEncoding(4) if kind == "cube" else FrequencyEncoding(3, 2, 0.0, 4.0)
    if kind == "distance":
        return DistanceBundle(position, network((position.out_features,), output="distance"), 0.14).eval()
    deformation = occupancy = None
    if kind == "moving":
        place, time = FrequencyEncoding(3, 3, 0.0, 2.0), FrequencyEncoding(1, 2, 0.0, 1.0)
        bend = network((place.out_features + time.out_features,), output="offset", width=3, spread=0.2)
        deformation = Deformation(place, time, bend, anchored=True)
        cells = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.7
        occupancy = Occupancy(cells.to(torch.uint8), torch.tensor([[-1.0] * 3, [1.0] * 3]))
    return RadianceBundle(
        position,
        network((position.out_features, direction.out_features)),
        direction,
        density="exp" if kind in ("pyramid", "box", "cube") else "softplus",
        density_bias=-0.5,
        colour_padding=0.001,
        deformation=deformation,
        occupancy=occupancy,
    ).eval()


def evaluate(field: BundledField, count: int = 20) -> tuple[Tensor, ...]:
    """The field at random points."""
    generator = torch.Generator().manual_seed(5)
    points, towards = 0.5 * torch.randn(count, 3, generator=generator), torch.randn(count, 3, generator=generator)
    times = torch.rand(count, 1, generator=generator)
    if isinstance(field, DistanceBundle):
        return (field(points),)
    assert isinstance(field, RadianceBundle)
    towards = torch.nn.functional.normalize(towards, dim=-1)
    moving = times if field.deformation is not None else None
    density, colour = field(points, towards if field.direction is not None else None, moving, scale=0.1)
    return (density,) if colour is None else (density, colour)


def looking_at(eye: Tensor, width: int = 6, height: int = 5, time: float | None = None) -> PinholeCamera:
    """A camera that looks at the origin."""
    back = torch.nn.functional.normalize(eye, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), back), dim=0)
    pose = torch.stack([right, torch.linalg.cross(back, right), back, eye], dim=1)
    return PinholeCamera(pose, 1.2 * width, 1.1 * width, width / 2, height / 2 + 0.25, width, height, time)


def some_grid(times: int, seed: int = 0) -> GridRenderer:
    """Random densities in a box round the origin."""
    generator = torch.Generator().manual_seed(seed)
    density = 4 * torch.rand(times, 8, 7, 6, generator=generator)
    occupied = torch.rand(times, 8, 7, 6, generator=generator) < 0.6
    return GridRenderer(DensityGrid(torch.tensor([-1.0, -0.9, -0.8]), 0.25, density, occupied), rate=3.0)


def some_distances() -> DistanceGrid:
    """Of a ball, in a box round the origin."""
    box = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.25]])
    return build_distance_grid(lambda points: points.norm(dim=-1) - 0.7, box, cells=9)


def some_renderer(kind: str) -> SceneRenderer:
    """One that fits a field of one of `KINDS`."""
    if kind == "distance":
        return BundledSurface(SurfaceRenderer(max_steps=40, grid=some_distances()))
    if kind not in ("contracted", "pyramid", "cube"):
        return BundledGrid.of(some_grid(3 if kind == "moving" else 1))
    position = position_encoding(kind)
    proposal = RadianceBundle(position, network((position.out_features,), seed=3), None, density_bias=-1.0).eval()
    exponent, spacing = -1.5 if kind == "pyramid" else None, "piecewise" if kind == "cube" else "power"
    sampling = ProposalRenderer((6, 5, 4), exponent, spacing=spacing)  # type: ignore[arg-type]
    return BundledProposals(sampling, [proposal], thinned=kind == "pyramid")


def with_scene(kind: str) -> BundledField:
    """A field of one of `RENDERED` with all that a bundle renders it by."""
    field, moving = make(kind), kind == "moving"
    eyes = torch.tensor([[2.0, 1.0, 1.0], [-1.0, 2.0, 0.5]])
    views = [BundledView(f"r_{i}.png", looking_at(eye, time=0.5 * i if moving else None)) for i, eye in enumerate(eyes)]
    field.scene = BundledScene(
        some_renderer(kind),
        near=0.0 if kind == "cube" else 0.1,
        far=5.0,
        box=(-1.0, -1.0, -1.0, 1.0, 1.0, 1.0),
        background=None if kind == "box" else (0.25, 0.5, 1.0),
        views=views,
        coordinates=SceneCoordinates((0.0, 1.0, 0.0, 0.5, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0), 0.4),
        times=(0.0, 1.0) if moving else None,
        quality=None if kind == "distance" else MeasuredQuality(30.0, 29.97),
    )
    return field


def elastic(kind: str, shares: tuple[float, ...] = (1.0, 0.5, 0.25)) -> BundledField:
    """As `with_scene`, all networks of which have shares of their features; quality is measured at the second."""
    field = with_scene(kind)
    for part in field.modules():
        if isinstance(part, BundledGraph):
            part.shares = shares
    assert field.scene is not None
    field.scene.views = tuple(replace(view, psnr=31.0) for view in field.scene.views)
    field.scene.share_quality = {shares[1]: MeasuredQuality(28.0, 27.5)}
    return field
