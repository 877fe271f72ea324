"""Held-out PSNR while a run trained, from the event files that nerfstudio leaves beside its config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

TAG = "Eval Images Metrics Dict (all images)/psnr"
"""What nerfstudio calls the mean PSNR over all held-out images, written each `--steps-per-eval-all-images`."""
REMARK = (
    "nerfstudio's own measurement while training, on the views that training holds out (mostly the validation split); "
    "the table above scores its own views by its own protocol."
)
_PRINTED = 8

Curve = list[tuple[int, float]]


def psnr_curve(folder: Path) -> Curve:
    """Steps and held-out PSNR in dB, in the order of steps; empty where none were written.

    There are some where a run trained with ``--vis tensorboard`` (or viewer+tensorboard) and reached a multiple of
    ``--steps-per-eval-all-images``.

    Args:
        folder: where the run's ``events.out.tfevents.*`` lie.
    """
    if not any(folder.glob("events.out.tfevents.*")):
        return []
    # here: it takes seconds to import, and most runs have no use for it
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(
        str(folder), size_guidance={event_accumulator.SCALARS: 0, event_accumulator.IMAGES: 1}
    )
    events.Reload()
    if TAG not in events.Tags()[event_accumulator.SCALARS]:
        return []
    values = {
        event.step: float(event.value) for event in events.Scalars(TAG)
    }  # a step made twice: the later one counts
    return sorted(values.items())


def curve_line(name: str, curve: Sequence[tuple[int, float]]) -> str:
    """One line for a curve: some of its points, spread evenly, the first and the last among them."""
    count = min(len(curve), _PRINTED)
    chosen = np.linspace(0, len(curve) - 1, count).round().astype(int)
    points = ", ".join(f"step {curve[i][0]} {curve[i][1]:.1f}" for i in chosen)
    return f"{name}: held-out PSNR while training: {points}"
