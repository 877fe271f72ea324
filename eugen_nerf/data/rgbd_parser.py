"""nerfstudio's data parser of posed RGB-D sequences: in metres, with unchanged poses, in temporal order."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.rich_utils import CONSOLE
from numpy.typing import NDArray

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.rgbd.rgbd_sequence import Inspection, inspect_sequence, read_sequence
from eugen_nerf.data.rgbd.rgbd_types import Layout, RGBDFrame, Sequence, SequenceOptions

BOX_QUANTILE = 1e-3
"""Share of the measured points outside the scene box on each side: sensors measure some points far off."""


@dataclass
class EugenRGBDDataParserConfig(DataParserConfig):
    """A posed RGB-D sequence in the layout of 7-Scenes, nerfstudio's transforms.json, TUM or Replica."""

    _target: type = field(default_factory=lambda: EugenRGBDDataParser)
    """Target class to instantiate."""
    data: Path = Path("data/room")
    """Directory of the sequence."""
    layout: Layout = "auto"
    """Layout of the files; auto detects it."""
    depth_unit: float | None = None
    """Metres of one stored unit of depth, such as 0.001; None uses that of the layout."""
    depth_invalid: tuple[float, ...] = (0.0, 65535.0)
    """Stored values that mean "not measured"."""
    depth_max: float = 10.0
    """Depths beyond this are not used, metres."""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx, fy, cx, cy in pixels from the image's upper left corner; None uses those of the layout, scaled to depth."""
    axes: Literal["auto", "opencv", "nerfstudio"] = "auto"
    """Axes of the poses' cameras: opencv (y down, z forward) or nerfstudio (y up, z backward)."""
    fps: float = 30.0
    """Frames per second, where the layout has no timestamps."""
    max_time_difference: float = 0.02
    """Seconds that colour, depth and pose may be apart, where each has timestamps of its own (tum)."""
    frame_step: int = 1
    """Use every n-th frame."""
    eval_interval: int = 8
    """One of every n frames is held out for evaluation; 0 holds none out and evaluates on all. Lists of files in the
    data set take precedence."""
    train_on_all: bool = False
    """Train on the held-out frames too."""
    box_margin: float = 0.1
    """Margin of the scene box around the measured points and the cameras, metres."""


_shared: ContextVar[dict[Hashable, Inspection] | None] = ContextVar("sequences read", default=None)


@contextmanager
def sequences_read_once() -> Iterator[None]:
    """Within it, parsers with the same settings read a sequence once; its files must not change meanwhile."""
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


class EugenRGBDDataParser(DataParser):
    """Parses a posed RGB-D sequence.

    Cameras are nerfstudio's (x right, y up, z backward), in metres, neither scaled nor rotated. They are moved only if
    their coordinates are too large for single precision. `metadata` of the outputs holds `depth_filenames`,
    `depth_masks` (files or None), `lenses` (as photographed: `load_depth_of` and `load_color` undistort),
    `depth_unit_scale_factor` (metres a stored unit), `depth_invalid` (stored values), `depth_max` (metres) and
    `timestamps` (seconds since the first frame). Assumptions, omissions and changes are printed once.

    Raises:
        ConfigError: a setting out of its range.
        DataError: a sequence that cannot be used.
    """

    config: EugenRGBDDataParserConfig

    def __init__(self, config: EugenRGBDDataParserConfig) -> None:
        super().__init__(config)
        if config.frame_step < 1 or config.eval_interval < 0 or config.box_margin < 0.0:
            raise ConfigError(
                f"frame_step {config.frame_step}, eval_interval {config.eval_interval} and box_margin "
                f"{config.box_margin:g} are given, but at least 1, 0 and 0 are needed: correct them"
            )
        self._loaded: tuple[Sequence, NDArray[np.float32]] | None = None

    def _sequence(self) -> tuple[Sequence, NDArray[np.float32]]:
        """The sequence and the box [2, 3] around what was measured; read once for all splits."""
        if self._loaded is None:
            config = self.config
            options = SequenceOptions(**{f.name: getattr(config, f.name) for f in fields(SequenceOptions)})
            inspection = _read(Path(config.data), options)
            sequence = inspection.sequence
            for note in sequence.notes:
                CONSOLE.print(note, markup=False, soft_wrap=True)
            if any(frame.splits is not None for frame in sequence.frames):
                CONSOLE.print(_listed(sequence.frames), markup=False, soft_wrap=True)
            self._loaded = sequence, _box(inspection.points, sequence.frames, config.box_margin)
        return self._loaded

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: object) -> DataparserOutputs:
        config = self.config
        sequence, box = self._sequence()
        frames = _split(sequence.frames[:: config.frame_step], split, config.eval_interval, config.train_on_all)
        if not frames and sequence.frames[0].splits is not None:
            raise DataError(
                f"the {split} split of '{config.data}' is empty: its lists of files have no such frame; add "
                f"{split}_filenames to transforms.json, or remove the lists"
            )
        if not frames:
            raise DataError(
                f"the {split} split of '{config.data}' is empty: {len(sequence.frames)} frames at --eval-interval "
                f"{config.eval_interval}; choose an interval of at least 2 and at most the number of frames, or 0"
            )
        lens = torch.tensor([frame.lens.pinhole for frame in frames], dtype=torch.float32)
        poses = torch.from_numpy(np.stack([frame.pose[:3] for frame in frames]).astype(np.float32))
        width, height = sequence.size
        cameras = Cameras(
            camera_to_worlds=poses,
            fx=lens[:, :1],
            fy=lens[:, 1:2],
            cx=lens[:, 2:3],
            cy=lens[:, 3:],
            width=width,
            height=height,
            camera_type=CameraType.PERSPECTIVE,
        )
        return DataparserOutputs(
            image_filenames=[frame.color for frame in frames],
            cameras=cameras,
            scene_box=SceneBox(aabb=torch.from_numpy(box)),
            metadata={
                "depth_filenames": [frame.depth for frame in frames],
                "depth_masks": [frame.mask for frame in frames],
                "lenses": [frame.lens for frame in frames],
                "depth_unit_scale_factor": sequence.depth_unit,
                "depth_invalid": sequence.depth_invalid,
                "depth_max": config.depth_max,
                "timestamps": [frame.time for frame in frames],
            },
            dataparser_transform=torch.tensor(np.c_[np.eye(3), -np.array(sequence.origin)], dtype=torch.float32),
            dataparser_scale=1.0,
        )


def _read(path: Path, options: SequenceOptions) -> Inspection:
    """The sequence and its measured points, read or shared with an earlier parser."""
    shared, key = _shared.get(), (path.resolve(), repr(options))
    if shared is not None and key in shared:
        return shared[key]
    found = inspect_sequence(read_sequence(path, options), options)
    if shared is not None:
        shared[key] = found
    return found


def _split(frames: tuple[RGBDFrame, ...], split: str, interval: int, train_on_all: bool) -> list[RGBDFrame]:
    """Frames of a split: those that the data set lists, or else the last of every `interval` frames is held out.

    Validation and test use each other's list where their own has no frame.
    """
    if any(frame.splits is not None for frame in frames):
        wanted = [frozenset({split})] if split == "train" else [frozenset({split}), frozenset({"val", "test"})]
        if split == "train" and train_on_all:
            wanted = [frozenset({"train", "val", "test"})]
        listed = [[frame for frame in frames if (frame.splits or frozenset()) & names] for names in wanted]
        return next((chosen for chosen in listed if chosen), [])
    held = [interval > 0 and index % interval == interval - 1 for index in range(len(frames))]
    if split != "train":
        return [frame for frame, out in zip(frames, held, strict=True) if out or interval == 0]
    return [frame for frame, out in zip(frames, held, strict=True) if train_on_all or not out]


def _listed(frames: tuple[RGBDFrame, ...]) -> str:
    """A line on the splits that the data set's lists of files define."""
    counts = {split: sum(split in (frame.splits or ()) for frame in frames) for split in ("train", "val", "test")}
    text = f"splits by the data set's lists of files: {', '.join(f'{count} {name}' for name, count in counts.items())}"
    unlisted = sum(not frame.splits for frame in frames)
    return f"{text}; left out {unlisted} frames that are in no list" if unlisted else text


def _box(points: NDArray[np.float32], frames: tuple[RGBDFrame, ...], margin: float) -> NDArray[np.float32]:
    """Corners [2, 3] of a box around cameras and measured points, a margin included."""
    low, high = np.quantile(points, [BOX_QUANTILE, 1.0 - BOX_QUANTILE], axis=0)
    cameras = np.stack([frame.pose[:3, 3] for frame in frames])
    low, high = np.minimum(low, cameras.min(0)), np.maximum(high, cameras.max(0))
    return np.stack([low - margin, high + margin]).astype(np.float32)


eugen_rgbd = DataParserSpecification(
    EugenRGBDDataParserConfig(), description="Posed RGB-D sequences in metres: 7-Scenes, transforms.json, TUM, Replica."
)
"""Registered with nerfstudio under the name eugen-rgbd."""
