"""What all parts of a day are given: where, how long, on which device, and at which sizes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from eugen_nerf.benchmarks.network_speed import FAMILIES, Family
from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.gpu_day.sizes import tiny_family

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""


@dataclass(frozen=True)
class Day:
    """Settings of a day; the same for all its parts and for a second call that goes on.

    Attributes:
        output: folder of the results: `gpu_day.json`, `summary.txt`.
        work: folder of everything else: rows, logs, compiled kernels, runs.
        data: folder that holds lego, fox, garden, dnerf-lego-tiny and 7scenes-kitchen.
        device: "cuda" or "cpu".
        minutes: for everything, in all calls together.
        call: minutes of this call; `minutes` where None.
        tiny: whether networks, images and batches are tiny: a dry run.
        compiled: whether torch.compile takes part.

    Raises:
        ConfigError: no such device here, or no time.
    """

    output: Path
    work: Path
    data: Path
    device: str = "cuda"
    minutes: float = 12.0
    call: float | None = None
    tiny: bool = False
    compiled: bool = True

    def __post_init__(self) -> None:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("there is no CUDA device here: try --dry-run, which does all of it on a CPU")
        if min(self.minutes, self.call or self.minutes) <= 0:
            raise ConfigError(
                f"{self.minutes:g} minutes are given, {self.call} of this call; give more than 0, such as 12"
            )

    @property
    def families(self) -> tuple[Family, ...]:
        """The published architectures, or tiny ones of the same wiring."""
        return tuple(tiny_family(family) for family in FAMILIES) if self.tiny else FAMILIES

    @property
    def rows(self) -> Path:
        """Folder of the rows, a file a part."""
        return self.work / "rows"

    @property
    def target(self) -> torch.device:
        """The device, as torch has it."""
        return torch.device(self.device)

    def environment(self) -> dict[str, str]:
        """Variables that the parts' processes need: this checkout importable, compiled kernels kept, no network."""
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PYTHONUNBUFFERED": "1",
            "TRITON_CACHE_DIR": str(self.work / "cache" / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.work / "cache" / "inductor"),
            "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
        }
        carried = self.data.parent / "torch"
        if carried.is_dir():
            variables.setdefault("TORCH_HOME", str(carried))
        if self.device == "cpu":
            variables["TRITON_INTERPRET"] = "1"
        return variables

    def write(self) -> Path:
        """Stores the settings in the work folder, for `read`."""
        path = self.work / "day.json"
        with atomic_path(path, replace=True) as partial:
            partial.write_text(json.dumps(asdict(self), default=str, indent=1) + "\n", encoding="utf8")
        return path

    @classmethod
    def read(cls, path: Path) -> Day:
        """The settings that `write` stored."""
        content = json.loads(path.read_text(encoding="utf8"))
        return cls(**content | {name: Path(content[name]) for name in ("output", "work", "data")})
