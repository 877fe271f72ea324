"""Rays of a step, made as the methods' data managers make them on the device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.model_components.ray_generators import RayGenerator
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from eugen_nerf.data.rgbd.depth_rays import DepthFrame, depth_normals
from eugen_nerf.data.stream import RGBDStreamConfig

FRAMES = 20
SIZE = 200
"""Pixels along each side of a frame. Neither number is in what a step costs: rays are gathered from frames."""


def ray_source(config: TrainerConfig, *, moving: bool) -> Callable[[int], RayBundle]:
    """Makes a number of rays through pixels drawn at random, with what they measured where a method learns from depth.

    Args:
        config: of the method.
        moving: whether the scene does, so that rays have times.
    """
    generator = RayGenerator(_cameras(moving))
    stream = config.pipeline.datamanager
    if isinstance(stream, RGBDStreamConfig):
        return functools.partial(_depth_rays, stream, generator, DepthFrame.of(torch.ones(SIZE, SIZE)))
    return lambda rays: generator(torch.randint(0, FRAMES, (rays, 3)))


def without_contents(bundle: RayBundle, mode: FakeTensorMode) -> RayBundle:
    """The same rays as tensors of a mode, which have shapes and no numbers."""
    values = {field.name: getattr(bundle, field.name) for field in dataclasses.fields(bundle)}
    fake: dict[str, Any] = tree_map_only(torch.Tensor, mode.from_tensor, values)
    return RayBundle(**fake)


def _cameras(moving: bool) -> Cameras:
    poses = torch.eye(4)[:3].repeat(FRAMES, 1, 1)
    times = torch.linspace(0, 1, FRAMES)[:, None] if moving else None
    return Cameras(poses, float(SIZE), float(SIZE), SIZE / 2, SIZE / 2, SIZE, SIZE, times=times)


def _depth_rays(config: RGBDStreamConfig, generator: RayGenerator, frame: DepthFrame, rays: int) -> RayBundle:
    """As `RGBDStreamDataManager` makes them, of frames that are at hand; the frames' choice launches nothing."""
    draws, ends = torch.Generator().manual_seed(0), [rays * i // config.window for i in range(config.window + 1)]
    pixels = [frame.draw(end - start, draws) for start, end in pairwise(ends)]
    indices = torch.cat([torch.cat([torch.full_like(p[:, :1], i), p], dim=1) for i, p in enumerate(pixels)])
    bundle: RayBundle = generator(indices)
    stretch = bundle.metadata["directions_norm"]
    directions = (bundle.directions * stretch).split([len(p) for p in pixels])
    normals = [
        depth_normals(frame.depth, p, d, generator.cameras[i], config.normal_step)
        for i, (p, d) in enumerate(zip(pixels, directions, strict=True))
    ]
    depth = torch.cat([frame.depth[p[:, 0], p[:, 1]] for p in pixels])[:, None]
    bundle.metadata |= {
        "surface_distance": depth * stretch,
        "surface_normals": torch.cat(normals),
        "frame": indices[:, :1],
    }
    return bundle
