"""The data manager of a depth stream: frames revealed step by step, keyframes, and rays with the measured surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from nerfstudio.model_components.ray_generators import RayGenerator
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from eugen_nerf.core.distributed import first_process_value, process_count, process_index, summed
from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.checks import check_dataparser_outputs
from eugen_nerf.data.manager import EugenDataManager, EugenDataManagerConfig
from eugen_nerf.data.rgbd.depth_rays import DepthFrame, RGBDDataset, depth_normals
from eugen_nerf.data.rgbd.keyframes import KeyframeMemory, StreamSchedule, step_seed

Reference = dict[str, Tensor]
"""Weights of the map with which new frames are compared."""


@dataclass
class RGBDStreamConfig(EugenDataManagerConfig):
    """A stream of posed depth images; the defaults are the settings that iSDF's authors published."""

    _target: type = field(default_factory=lambda: RGBDStreamDataManager)
    """Target class to instantiate."""
    mode: Literal["incremental", "batch"] = "incremental"
    """incremental: frames arrive one after the other, and old ones are replayed as keyframes; batch: all frames are
    available."""
    frame_rate: float = 30.0
    """Frames per second to which `steps_per_frame` refers, by the frames' timestamps; 0 counts frames instead of
    time."""
    steps_per_frame: int = 1
    """Training steps per camera frame; frame rate times this is the number of steps per second of real time."""
    steps_on_frame: int = 10
    """Steps before the newest frame is added."""
    steps_on_keyframe: int = 60
    """As `steps_on_frame`, after a frame that became a keyframe; frames that pass meanwhile are skipped."""
    steps_on_first: int = 200
    """As `steps_on_frame`, after the very first frame."""
    window: int = 5
    """Frames in a batch: the latest, the last keyframe, and others drawn by their last losses."""
    train_num_rays_per_batch: int = 1000
    """Rays in a batch, divided evenly among its frames."""
    check_rays: int = 400
    """Number of rays on which a new frame is compared with the map."""
    min_agreement: float = 0.65
    """A frame becomes a keyframe where the map agrees with fewer than this share of its depths."""
    max_gap: float = 5.0
    """Seconds without a new keyframe after which the next frame becomes one."""
    normal_step: int = 2
    """Distance in pixels of the depths whose differences give normals."""
    seed: int = 0
    """Seed for drawing frames and pixels."""


class RGBDStreamDataManager(EugenDataManager):
    """Rays through pixels with a depth. Metadata of a bundle, in addition to nerfstudio's `directions_norm`:

    * `surface_distance` `[R, 1]`: metres along the ray to the measured surface;
    * `surface_normals` `[R, 3]`: unit normals towards the camera, NaN where unknown;
    * `frame` int64 `[R, 1]`: index into the training (or evaluation) frames.

    Frames, keyframes, losses and the map for comparison are part of the module's extra state, so checkpoints hold them.
    They are the same in all processes of a training.

    Arguments:
        config, device, test_mode, world_size, local_rank: as in `VanillaDataManager`.

    Raises:
        ConfigError: a setting out of its range.
        DataError: a data set that cannot be used, or without any depth.
    """

    config: RGBDStreamConfig

    def __init__(self, config: RGBDStreamConfig, *args: Any, **kwargs: Any) -> None:
        if config.train_num_rays_per_batch < config.window or config.check_rays < 1 or config.normal_step < 1:
            raise ConfigError(
                f"{config.train_num_rays_per_batch} rays a batch, {config.check_rays} rays to check and a step of "
                f"{config.normal_step} pixels are given; at least {config.window} (one a frame), 1 and 1 are needed"
            )
        schedule = StreamSchedule(**{name: getattr(config, name) for name in StreamSchedule.__dataclass_fields__})
        super().__init__(config, *args, **kwargs)
        self.memory = KeyframeMemory(self.train_dataset.metadata["timestamps"], schedule, config.seed)
        self.reference: Reference | None = None
        self._agreement: Callable[[RayBundle, Reference], float] | None = None
        self._snapshot: Callable[[], Reference] | None = None
        self._frames: dict[int, DepthFrame | None] = {}

    @cached_property
    def dataset_type(self) -> type[RGBDDataset]:
        """Images with depth."""
        return RGBDDataset

    def setup_train(self) -> None:
        """Prepares rays. Depth images are read when they are revealed; colour images are never read."""
        self.train_ray_generator = RayGenerator(self.train_dataset.cameras.to(self.device))

    def setup_eval(self) -> None:
        """Prepares rays and the loaders of whole images, which read one at a time."""
        self.eval_ray_generator = RayGenerator(self.eval_dataset.cameras.to(self.device))
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(self.eval_dataset, device=self.device)
        self.eval_dataloader = RandIndicesEvalDataloader(self.eval_dataset, device=self.device)

    def set_map(self, agreement: Callable[[RayBundle, Reference], float], snapshot: Callable[[], Reference]) -> None:
        """Sets the map that decides which frames become keyframes; without one, every frame does.

        Args:
            agreement: share of rays on which the map with the given weights finds the measured surface.
            snapshot: a copy of the map's weights.
        """
        self._agreement, self._snapshot = agreement, snapshot

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Tensor]]:
        """Rays of a step, after the stream has advanced to it; each process draws other rays of the same frames.

        Raises:
            DataError: no frame has depth.
        """
        self.train_count += 1
        frames = self._window(step)
        generator = torch.Generator().manual_seed(step_seed(self.config.seed, step, process_index()))
        return self._rays(frames, self.config.train_num_rays_per_batch, generator)

    def next_eval(self, step: int) -> tuple[RayBundle, dict[str, Tensor]]:
        """Rays of one evaluation frame, drawn by the step.

        Raises:
            DataError: no evaluation frame has depth.
        """
        self.eval_count += 1
        generator = torch.Generator().manual_seed(step_seed(self.config.seed, step))
        assert isinstance(self.eval_dataset, RGBDDataset)
        for index in torch.randperm(len(self.eval_dataset), generator=generator).tolist():
            frame = DepthFrame.of(self.eval_dataset.depth(index).to(self.device))
            if len(frame.valid):
                pixels = frame.draw(self.config.eval_num_rays_per_batch, generator)
                return self._bundle(self.eval_ray_generator, [(index, frame, pixels)])
        raise DataError("no evaluation frame has a valid depth; check depth_invalid and depth_max of the data parser")

    def record(self, frames: Tensor, losses: Tensor) -> None:
        """Stores the last step's losses, of all processes, for drawing the next frames.

        Args:
            frames: int64 `[R]`, the rays' frames.
            losses: `[R]`.
        """
        if self.config.mode == "batch":
            return
        # on the CPU, or each of the next lines would wait for the device
        frames, losses = frames.cpu(), losses.detach().float().cpu()
        present, inverse = frames.unique(return_inverse=True)
        sums = torch.zeros(len(present)).index_add_(0, inverse, losses)
        totals = torch.stack([sums, torch.bincount(inverse).float()])
        if process_count() > 1:  # over the device: processes on GPUs exchange values there
            totals = summed(totals.to(self.device)).cpu()
        for frame, loss in zip(present.tolist(), (totals[0] / totals[1]).tolist(), strict=True):
            self.memory.record(frame, loss)

    def get_extra_state(self) -> dict[str, Any]:
        """Frames, keyframes and losses, and the weights with which new frames are compared."""
        return {"memory": self.memory.state(), "reference": self.reference}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_extra_state` returned."""
        self.memory.load_state(state["memory"])
        reference = state["reference"]
        self.reference = None if reference is None else {k: v.to(self.device) for k, v in reference.items()}

    def _check(self, outputs: DataparserOutputs, split: str) -> None:
        """Checks poses and cameras only: the data parser has decoded the images."""
        check_dataparser_outputs(outputs, split=split, images="none")

    def _window(self, step: int) -> list[int]:
        """Frames of a step, all with depth."""
        if self.config.mode == "batch":
            frames: list[int] = []
            for frame in self.memory.shuffled(step):
                if self._usable(frame):
                    frames.append(frame)
                if len(frames) == self.config.window:
                    break
        else:
            self.memory.advance(step, self._agrees, usable=self._usable, remember=self._remember)
            frames = self.memory.window(step)
            kept = {self.memory.latest, *self.memory.keyframes}
            self._frames = {i: frame for i, frame in self._frames.items() if frame is None or i in kept}
        if not any(self._usable(frame) for frame in frames):
            raise DataError(
                f"no training frame revealed up to step {step} has a valid depth; check depth_unit, depth_invalid and "
                "depth_max of the data parser"
            )
        return frames

    def _remember(self) -> None:
        if self._snapshot is not None:
            self.reference = self._snapshot()

    def _agrees(self, frame: int) -> float:
        if self._agreement is None or self.reference is None:
            return 0.0
        share = None
        # one process decides: another GPU may round differently, and the streams would diverge
        if process_index() == 0:
            generator = torch.Generator().manual_seed(step_seed(self.config.seed + 1, frame))
            share = self._agreement(self._rays([frame], self.config.check_rays, generator)[0], self.reference)
        return first_process_value(share, self.device)

    def _usable(self, index: int) -> bool:
        """Whether a training frame has any depth. Reads it, and prints a note once where it has none."""
        if index not in self._frames:
            assert isinstance(self.train_dataset, RGBDDataset)
            frame = DepthFrame.of(self.train_dataset.depth(index).to(self.device))
            self._frames[index] = frame if len(frame.valid) else None
            if not len(frame.valid):
                name = self.train_dataset.metadata["depth_filenames"][index]
                CONSOLE.print(f"frame {index} is skipped: no valid depth in {name}", markup=False)
        return self._frames[index] is not None

    def _rays(self, frames: list[int], count: int, generator: torch.Generator) -> tuple[RayBundle, dict[str, Tensor]]:
        """`count` rays, divided evenly among frames."""
        chosen = []
        for i, index in enumerate(frames):
            if not self._usable(index):
                continue
            frame = self._frames[index]
            assert frame is not None
            share = count * (i + 1) // len(frames) - count * i // len(frames)
            chosen.append((index, frame, frame.draw(share, generator)))
        return self._bundle(self.train_ray_generator, chosen)

    def _bundle(
        self, rays: RayGenerator, chosen: list[tuple[int, DepthFrame, Tensor]]
    ) -> tuple[RayBundle, dict[str, Tensor]]:
        """Rays through pixels of frames, with the depths measured there."""
        indices = torch.cat([torch.cat([torch.full_like(p[:, :1], i), p], dim=1) for i, _, p in chosen])
        bundle = rays(indices)
        stretch = bundle.metadata["directions_norm"]
        depths, normals, start = [], [], 0
        for index, frame, pixels in chosen:
            here = slice(start, start + len(pixels))
            start += len(pixels)
            depths.append(frame.depth[pixels[:, 0], pixels[:, 1]])
            directions = bundle.directions[here] * stretch[here]
            normals.append(depth_normals(frame.depth, pixels, directions, rays.cameras[index], self.config.normal_step))
        depth = torch.cat(depths)[:, None]
        bundle.metadata |= {
            "surface_distance": depth * stretch,
            "surface_normals": torch.cat(normals),
            "frame": indices[:, :1],
        }
        return bundle, {"indices": indices, "depth_image": depth}
