"""The settings of a comparison, which go into every result; light, since command-line options are made of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from eugen_nerf.core.choices import BACKENDS, Backend, PlanDtype
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import COUNT, SEED, Range, check_numbers

CONVENTIONS: dict[str, Any] = {
    "stride": 1,
    "background": "as the data set composites it (alpha_color), else the model's own background colour",
    "eight_bit": True,
    "data_range": 1.0,
    "ssim_window": 11,
    "ssim_sigma": 1.5,
    "ssim_region": "pixels whose whole window lies inside the image",
    "crop": "none: whole images",
    "colour_space": "as stored in the data set's files (sRGB); nothing is converted",
    "resampling": "by the run's data manager; rendered at the resolution that it has",
}
"""What every comparison has in common, for the reader of a result: predictions and ground truth are rounded to 8 bits
before any metric, as if read from PNG files; SSIM has a Gaussian window of 11 pixels and sigma 1.5."""


@dataclass(frozen=True)
class Protocol:
    """Which views are scored and by which metrics.

    Raises `ConfigError` for a value out of its range.
    """

    split: Literal["test", "val"] = "test"
    """Split whose views are scored."""
    limit: Annotated[int | None, tyro.conf.arg(name="views"), COUNT] = None
    """Score at most this many views, spread evenly over the split (default: all)."""
    lpips_net: Literal["alex", "vgg", "squeeze"] = "alex"
    """Network of LPIPS; its weights must be on disk, or LPIPS is left out."""
    frames_over_time: Annotated[int, tyro.conf.arg(metavar="INT"), Range(0, 10_000)] = 6
    """Frames of the first view in report.html where the data have times, from time 0 to 1; 0 for none."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def view_indices(self, available: int) -> list[int]:
        """Indices of the views to score among ``available`` ones; raises `ConfigError` where there is none."""
        if available < 1:
            raise ConfigError(f"the {self.split} split holds no view: nothing to score")
        count = available if self.limit is None else min(self.limit, available)
        return np.linspace(0, available - 1, count).round().astype(int).tolist()

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data for a result file."""
        return {**asdict(self), **CONVENTIONS}


@dataclass(frozen=True)
class Timing:
    """How times are taken: the runs take turns, A B C A B C, and medians are reported.

    Raises `ConfigError` for a value out of its range.
    """

    repeats: Annotated[int, Range(1, 10_000)] = 5
    """Timed rounds; in each, the runs take turns."""
    warmup: Annotated[int, Range(0, 10_000)] = 1
    """Untimed rounds before."""
    num_queries: Annotated[int | None, tyro.conf.arg(name="queries"), Range(1, 1 << 24)] = None
    """Points at which a field is evaluated in one timed call (default: 32768 on a CPU, 1048576 on a GPU)."""
    chunk_size: Annotated[int | None, Range(1, 1 << 24)] = None
    """Points evaluated at once, the same for all runs (default: 4096 on a CPU, 262144 on a GPU)."""
    num_views: Annotated[int, tyro.conf.arg(name="timed-views"), Range(1, 10_000)] = 1
    """Views rendered in one timed call."""
    split_repeats: Annotated[int, Range(1, 10_000)] = 3
    """Rounds that take a render's time apart: encoding, MLP, sampling, compositing, other."""
    train_iterations: Annotated[int, tyro.conf.arg(metavar="N"), Range(0, 10_000_000)] = 0
    """Training iterations to time as well, in memory, after everything else; 0 for none."""
    seed: Annotated[int, SEED] = 0
    """Of the random points, and of the pixels trained on."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def query_counts(self, device_type: str) -> tuple[int, int]:
        """Queries of a timed call and points evaluated at once, on a "cpu" or "cuda" device."""
        queries, chunk = (1 << 20, 1 << 18) if device_type == "cuda" else (1 << 15, 1 << 12)
        return self.num_queries or queries, self.chunk_size or chunk

    def on(self, device_type: str) -> Timing:
        """The same with these numbers in place of None, for a result file."""
        queries, chunk = self.query_counts(device_type)
        return replace(self, num_queries=queries, chunk_size=chunk)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data for a result file."""
        return asdict(self)


@dataclass(frozen=True)
class Inference:
    """How networks and rendering are run; unset, both are as the methods have them.

    Raises `ConfigError` for settings that do not fit together.
    """

    plan_backend: Literal["none", Backend] = "none"
    """Run every network by an inference plan; the report states how far its outputs are from float32."""
    plan_dtype: PlanDtype = "float32"
    """Of the plans' weights, features and products: float16 for wgpu, bfloat16 for the others."""
    plan_drop_norm: Annotated[float, tyro.conf.arg(metavar="SHARE"), Range(0, 1, below=True)] = 0.0
    """Let plans take the norm of a layer's input for constant where outputs change by less than this share of the
    largest, such as 0.001."""
    auxiliary_outputs: bool = True
    """Render outputs that no score needs as well, such as the coarse field's colours."""
    early_stop: Annotated[float, tyro.conf.arg(metavar="T"), Range(0, 1, below=True)] = 0.0
    """End rays where their transmittance is below this, such as 0.003: no channel changes by more."""
    skip_empty: Annotated[int, tyro.conf.arg(metavar="CELLS"), Range(0, 512)] = 0
    """Skip space where the trained density is zero, by a grid of so many cells a side, such as 96; 0 for none."""

    def __post_init__(self) -> None:
        if self.plan_backend == "none" and self.plan_drop_norm:
            raise ConfigError("norms are dropped by plans: give --plan-backend eager")
        if self.plan_backend == "none" and self.plan_dtype != "float32":
            backend = "eager" if self.plan_dtype in BACKENDS["eager"] else "wgpu"
            raise ConfigError(f"a plan in {self.plan_dtype} needs a backend: give --plan-backend {backend}")
        if self.plan_backend != "none" and self.plan_dtype not in BACKENDS[self.plan_backend]:
            dtypes = " or ".join(BACKENDS[self.plan_backend])
            raise ConfigError(f"plans by {self.plan_backend} are in {dtypes}, not in {self.plan_dtype}")
        check_numbers(self)

    @property
    def changes_images(self) -> bool:
        """Whether rays end early or space is skipped."""
        return self.early_stop > 0 or self.skip_empty > 0

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data for a result file, under the keys that reports have had from the start."""
        return {
            "backend": self.plan_backend,
            "dtype": self.plan_dtype,
            "extras": self.auxiliary_outputs,
            "opaque": self.early_stop,
            "empty": self.skip_empty,
            "drop_norm": self.plan_drop_norm,
        }
