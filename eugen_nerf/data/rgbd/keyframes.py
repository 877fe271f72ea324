"""Selects the frames of a stream to train on: the latest, and keyframes drawn by their losses (iSDF, Sec. IV).

No nerfstudio, no images: frames are numbers in temporal order. Every decision depends only on the step, the seed
and the outputs of the map, so that a resumed run makes the same decisions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from eugen_nerf.core.errors import ConfigError, DataError


@dataclass(frozen=True)
class StreamSchedule:
    """When frames are revealed, trained on and kept; steps are training steps."""

    frame_rate: float
    """Frames per second to which `steps_per_frame` refers, by the frames' timestamps; 0 counts frames instead of
    time."""
    steps_per_frame: int
    """Training steps per camera frame."""
    steps_on_frame: int
    """Steps before the newest frame is added, if the last one was not kept."""
    steps_on_keyframe: int
    """As `steps_on_frame`, if the last one was kept."""
    steps_on_first: int
    """As `steps_on_frame`, for the very first frame."""
    window: int
    """Frames in a training batch."""
    min_agreement: float
    """A frame becomes a keyframe if a smaller share of its pixels agrees with the map."""
    max_gap: float
    """Seconds without a new keyframe after which the next frame becomes one."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        counts = (self.steps_per_frame, self.steps_on_frame, self.steps_on_keyframe, self.steps_on_first)
        if min(counts) < 1 or not self.frame_rate >= 0 or not self.max_gap > 0:
            raise ConfigError(
                f"steps per frame {self.steps_per_frame}, on a frame {self.steps_on_frame}, on a keyframe "
                f"{self.steps_on_keyframe}, on the first {self.steps_on_first}, frame rate {self.frame_rate:g} and gap "
                f"{self.max_gap:g} are given; steps must be at least 1, the rate at least 0 and the gap positive"
            )
        if self.window < 2:
            raise ConfigError(f"a window of {self.window} frames is too small: it holds the latest two at least")
        if not 0 <= self.min_agreement <= 1:
            raise ConfigError(f"the share of agreeing pixels must be in [0, 1], got {self.min_agreement:g}")


class KeyframeMemory:
    """The state of a stream: its clock, its keyframes and their latest losses.

    Args:
        timestamps: seconds of each frame, not decreasing.
        schedule: see `StreamSchedule`.
        seed: for drawing frames.

    Raises:
        DataError: no frames, or timestamps that are not finite or go back.
    """

    def __init__(self, timestamps: Sequence[float], schedule: StreamSchedule, seed: int) -> None:
        times = [float(t) for t in timestamps]
        if not times:
            raise DataError("a stream needs at least one frame; check the sequence")
        for i, (a, b) in enumerate(itertools.pairwise(times), start=1):
            if not a <= b:
                raise DataError(f"frame {i} at {b:g} s follows one at {a:g} s: frames must come in temporal order")
        if not all(math.isfinite(t) for t in times):
            raise DataError("a frame's timestamp is not a finite number: give seconds")
        self.times = times
        self.schedule = schedule
        self.seed = seed
        self.keyframes: list[int] = []
        self.latest: int | None = None
        self.losses: dict[int, float] = {}
        self.due = 0

    def revealed(self, step: int) -> int:
        """Number of frames available at the start of a step; at least 1."""
        s = self.schedule
        if s.frame_rate == 0:
            return min(len(self.times), step // s.steps_per_frame + 1)
        elapsed = step / (s.frame_rate * s.steps_per_frame)
        return max(1, sum(t - self.times[0] <= elapsed + 1e-9 for t in self.times))

    def advance(
        self,
        step: int,
        agreement: Callable[[int], float],
        *,
        usable: Callable[[int], bool] = lambda frame: True,
        remember: Callable[[], None] = lambda: None,
    ) -> int | None:
        """Adds the newest frame if one is due.

        Args:
            step: the next training step.
            agreement: share of a frame's pixels, in [0, 1], at which the last remembered map renders the measured
                depth.
            usable: whether a frame has any depth; others are skipped.
            remember: called to replace the map that `agreement` evaluates by the present one. This happens before the
                first frame after a keyframe, so that the compared map was not trained on later frames.

        Returns:
            The frame, or None.

        Raises:
            DataError: the state is of a longer sequence.
        """
        if self.latest is not None and max(self.latest, *self.keyframes) >= len(self.times):
            raise DataError(
                f"the checkpoint was trained on frame {max(self.latest, *self.keyframes)} of its sequence, this one "
                f"has {len(self.times)} frames: continue with the data the run was trained on"
            )
        if step < self.due:
            return None
        last = -1 if self.latest is None else self.latest
        newest = next((f for f in range(self.revealed(step) - 1, last, -1) if usable(f)), None)
        if newest is None:
            return None
        if not self.keyframes or self.latest == self.keyframes[-1]:
            remember()
        first = not self.keyframes
        keep = first or self.times[newest] - self.times[self.keyframes[-1]] > self.schedule.max_gap
        keep = keep or agreement(newest) < self.schedule.min_agreement
        if self.latest is not None and self.latest not in self.keyframes:
            self.losses.pop(self.latest, None)
        self.latest = newest
        if keep:
            self.keyframes.append(newest)
        s = self.schedule
        self.due = step + (s.steps_on_first if first else s.steps_on_keyframe if keep else s.steps_on_frame)
        return newest

    def window(self, step: int) -> list[int]:
        """Frames to train on in a step: the latest, the last keyframe, and others drawn by their latest losses.

        The others are drawn without replacement, with probability proportional to the loss. Empty before the first
        frame.
        """
        if self.latest is None:
            return []
        sure = [self.latest]
        rest = [k for k in self.keyframes if k != self.latest]
        if rest:
            sure.append(rest.pop())
        room = self.schedule.window - len(sure)
        return [*self._draw(rest, room, step), *reversed(sure)]

    def shuffled(self, step: int) -> list[int]:
        """All frames in random order for a step, for training with all frames available."""
        generator = torch.Generator().manual_seed(step_seed(self.seed, step))
        return torch.randperm(len(self.times), generator=generator).tolist()

    def record(self, frame: int, loss: float) -> None:
        """Stores a frame's mean loss for the next draws; a loss that is not finite is ignored."""
        if frame in (self.latest, *self.keyframes) and math.isfinite(loss):
            self.losses[frame] = loss

    def state(self) -> dict[str, Any]:
        """The mutable state as plain data."""
        return {
            "keyframes": list(self.keyframes),
            "latest": self.latest,
            "losses": dict(self.losses),
            "due": self.due,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self.keyframes = [int(k) for k in state["keyframes"]]
        self.latest = None if state["latest"] is None else int(state["latest"])
        self.losses = {int(k): float(v) for k, v in state["losses"].items()}
        self.due = int(state["due"])

    def _draw(self, frames: list[int], count: int, step: int) -> list[int]:
        if len(frames) <= count:
            return frames
        # a frame without a loss was not trained on lately: it gets the highest weight
        highest = max(self.losses.values(), default=1.0)
        weights = torch.tensor([max(self.losses.get(f, highest), 1e-12) for f in frames], dtype=torch.float64)
        generator = torch.Generator().manual_seed(step_seed(self.seed, step))
        return [frames[i] for i in torch.multinomial(weights, count, generator=generator).tolist()]


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """A seed for one step's draws: a resumed run draws as an uninterrupted one, without stored state.

    Args:
        seed: of the run.
        step: the training step.
        process: index of the process, if each should draw different numbers.
    """
    # torch's CPU generator uses only the low 32 bits: processes are spread over those
    return (seed * 1_000_003 + step * 7919 + process * 2_654_435_761 + 1) % (1 << 62)
