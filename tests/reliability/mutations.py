"""Mutations in full number, for `scripts/reliability.py`: files changed at random, counted by what became of them."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mutated_files import (
    CHECKPOINT,
    REPORT,
    ROOM,
    Kind,
    attempt,
    blender,
    bundle,
    config,
    data_set,
    image_set,
    published,
    sequence,
    suite,
)
from painted_sphere import write_colmap
from rgbd_sequences import WRITERS as LAYOUTS
from tiny_data import write_blender, write_nerfstudio

WRITERS = (write_nerfstudio, write_colmap)

KINDS: dict[str, tuple[list[Kind], int]] = {
    "bundles": ([bundle(kind) for kind in ("moving", "pyramid", "contracted", "distance")], 20_000),
    "suites": ([suite(name) for name in ("demo", "lego_cpu", "distill_lego_cpu", "isdf_room_cpu")], 5_000),
    "suites of studies": ([suite(name) for name in ("siren_cpu", "variance_cpu", "layer_fit_cpu")], 3_000),
    "config.yml": ([config(name) for name in ("nerf-dense", "zipnerf-merged", "isdf-factors")], 2_500),
    "checkpoints": ([CHECKPOINT], 8_000),
    "data sets": ([data_set(write_blender, blender), *(data_set(each, image_set) for each in WRITERS)], 3_500),
    "depth sequences": ([data_set(write, sequence) for write, _ in LAYOUTS.values()], 4_000),
    "published results": ([published()], 2_000),
    "reports (--verify)": ([REPORT], 1_000),
    "room.json": ([ROOM], 2_000),
}
NEVER = ("tracebacks", "nonsense")


def rows(folder: Path, most: int = 1 << 30) -> Iterator[dict[str, object]]:
    """A row for each kind of file, of at most so many tries. `folder` is empty."""
    warnings.simplefilter("ignore")
    for name, (kinds, tries) in KINDS.items():
        yield {"what": name, **tried(kinds, min(tries, most), folder / name.replace(" ", "_"))}


def tried(kinds: list[Kind], tries: int, folder: Path) -> dict[str, object]:
    """So many changed files of some kinds in turn, with the seeds 0, 1, ...; a mapping of counts."""
    counts: Counter[str] = Counter()
    whole = [folder / f"whole-{number}" for number in range(len(kinds))]
    for kind, place in zip(kinds, whole, strict=True):
        place.mkdir(parents=True)
        kind.prepare(place)
    first: dict[str, int] = {}
    for seed in range(tries):
        number = seed % len(kinds)
        with contextlib.redirect_stdout(io.StringIO()):
            outcome = attempt(kinds[number], whole[number], folder / "changed", random.Random(seed))
        counts[outcome] += 1
        first.setdefault(outcome, seed)
    wrong = {outcome: first[outcome] for outcome in counts if outcome not in ("refused", "accepted")}
    if wrong:
        print(f"first seeds: {wrong}")
    good = counts["refused"] + counts["accepted"] + counts["nonsense"]
    return {
        "tries": tries,
        "refused in one line": counts["refused"],
        "read": counts["accepted"],
        "tracebacks": tries - good,
        "nonsense": counts["nonsense"],
    }
