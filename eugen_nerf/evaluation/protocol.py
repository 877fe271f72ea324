"""What is measured, and how: two frozen records that go into every result, so that readers can compare."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eugen_nerf.core.errors import ConfigError

LPIPS_NETS = ("alex", "vgg", "squeeze")


@dataclass(frozen=True)
class Protocol:
    """Which views are scored and by which metrics.

    Attributes:
        split: the split whose views are scored, "test" or "val".
        views: indices of the views to score, in this order; None takes them by ``stride`` and ``limit``.
        stride: score every ``stride``-th view.
        limit: score at most this many views, spread evenly over those the stride leaves; None scores all.
        background: how ground truth with an alpha channel gets its background (a note for the reader).
        eight_bit: predictions and ground truth are rounded to 8 bits before any metric, as if read from PNG files.
        data_range: distance between black and white in the metrics.
        ssim_window: side of the Gaussian window in pixels.
        ssim_sigma: standard deviation of the Gaussian window in pixels.
        ssim_region: the pixels that SSIM is averaged over (a note for the reader).
        lpips_net: the network of LPIPS: "alex", "vgg" or "squeeze".
        crop: part of an image that is scored (a note for the reader).
        colour_space: of predictions and ground truth (a note for the reader).
        resampling: how photographs got their size (a note for the reader).
        frames_over_time: of a dynamic scene, shown (not scored) for the first view, from time 0 to 1; 0 for none.
    """

    split: str = "test"
    views: tuple[int, ...] | None = None
    stride: int = 1
    limit: int | None = None
    background: str = "as the data set composites it (alpha_color), else the model's own background colour"
    eight_bit: bool = True
    data_range: float = 1.0
    ssim_window: int = 11
    ssim_sigma: float = 1.5
    ssim_region: str = "pixels whose whole window lies inside the image"
    lpips_net: str = "alex"
    frames_over_time: int = 6
    crop: str = "none: whole images"
    colour_space: str = "as stored in the data set's files (sRGB); nothing is converted"
    resampling: str = "by the run's data manager; rendered at the resolution that it has"

    def __post_init__(self) -> None:
        if self.split not in ("test", "val"):
            raise ConfigError(f"split {self.split!r} cannot be scored: choose 'test' or 'val'")
        if self.stride < 1 or (self.limit is not None and self.limit < 1):
            raise ConfigError(f"stride and limit must be at least 1, not {self.stride} and {self.limit}")
        if self.frames_over_time < 0:
            raise ConfigError(f"frames over time must be 0 or more, not {self.frames_over_time}")
        if self.lpips_net not in LPIPS_NETS:
            raise ConfigError(f"no LPIPS network {self.lpips_net!r}: choose one of {', '.join(LPIPS_NETS)}")
        if not self.eight_bit or self.data_range != 1.0 or (self.ssim_window, self.ssim_sigma) != (11, 1.5):
            raise ConfigError("only 8-bit images, data range 1 and an 11x11 SSIM window of sigma 1.5 are implemented")

    def view_indices(self, available: int) -> list[int]:
        """Indices of the views to score among ``available`` ones.

        Raises:
            ConfigError: an index outside the data set, or none left.
        """
        if self.views is not None:
            wrong = [view for view in self.views if not 0 <= view < available]
            if wrong or not self.views:
                raise ConfigError(f"views {wrong or 'none'} cannot be scored: the split has views 0 to {available - 1}")
            return list(self.views)
        indices = list(range(0, available, self.stride))
        if self.limit is not None and len(indices) > self.limit:
            chosen = np.linspace(0, len(indices) - 1, self.limit).round().astype(int)
            indices = [indices[position] for position in chosen]
        if not indices:
            raise ConfigError(f"the {self.split} split holds no view: nothing to score")
        return indices

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data for a result file."""
        return asdict(self)


@dataclass(frozen=True)
class Timing:
    """How times are taken: the runs take turns, A B C A B C, and medians are reported.

    Attributes:
        warmup: untimed rounds before the timed ones.
        repeats: timed rounds.
        num_queries: points (position and direction) evaluated by a field in one timed call.
        chunk_size: points evaluated at once, the same for all runs: intermediate values of a chunk stay in the cache.
        num_views: test views rendered in one timed call of the whole-image time.
        seed: of the random points, and of the pixels trained on.
        split_repeats: rounds that take a render's time apart.
        train_iterations: timed training iterations of each run; 0 leaves training out.
    """

    warmup: int = 1
    repeats: int = 5
    num_queries: int = 32768
    chunk_size: int = 4096
    num_views: int = 1
    seed: int = 0
    split_repeats: int = 3
    train_iterations: int = 0

    def __post_init__(self) -> None:
        counts = (self.repeats, self.num_queries, self.chunk_size, self.num_views, self.split_repeats)
        if min(self.warmup, self.train_iterations) < 0 or min(counts) < 1:
            raise ConfigError(
                "warmup and training iterations must be at least 0; repeats, split repeats, queries, chunk size and "
                "timed views at least 1"
            )

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data for a result file."""
        return asdict(self)
