"""Which frames a map is trained on: no images, no networks, only numbers."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.rgbd.keyframes import KeyframeMemory, StreamSchedule, step_seed

SCHEDULE = StreamSchedule(
    frame_rate=0,
    steps_per_frame=1,
    steps_on_frame=1,
    steps_on_keyframe=3,
    steps_on_first=5,
    window=5,
    min_agreement=0.65,
    max_gap=100.0,
)


def memory(frames: int = 60, seed: int = 0, **changes: float) -> KeyframeMemory:
    return KeyframeMemory([0.1 * i for i in range(frames)], replace(SCHEDULE, **changes), seed)


class Mapper:
    """A map of a corridor: frame i sees cells i to i + 9, and a cell is known once a frame that saw it was trained on
    before the map was remembered."""

    def __init__(self, stops: range = range(0)) -> None:
        self.known: set[int] = set()
        self.trained: set[int] = set()
        self.stops = stops

    def cells(self, frame: int) -> set[int]:
        place = min(frame, self.stops.start) + max(0, frame - self.stops.stop) if len(self.stops) else frame
        return set(range(place, place + 10))

    def agreement(self, frame: int) -> float:
        return len(self.cells(frame) & self.known) / 10

    def remember(self) -> None:
        self.known = set(self.trained)

    def run(self, stream: KeyframeMemory, steps: range) -> list[tuple[int, list[int]]]:
        log = []
        for step in steps:
            stream.advance(step, self.agreement, remember=self.remember)
            frames = stream.window(step)
            for frame in frames:
                self.trained |= self.cells(frame)
                stream.record(frame, 0.1 + frame % 7)
            log.append((stream.latest, frames))
        return log


def test_a_frame_that_sees_new_space_is_kept_and_a_repeated_one_is_not() -> None:
    stream, mapper = memory(), Mapper(stops=range(20, 40))
    mapper.run(stream, range(60))
    assert stream.keyframes[0] == 0
    # 4 of 10 cells are new: the camera has gone 4 cells (or some more while it was busy with a keyframe)
    gaps = [b - a for a, b in itertools.pairwise(stream.keyframes)]
    assert min(gaps) >= 4
    assert not [k for k in stream.keyframes if 25 <= k <= 40]  # it stood still
    assert [k for k in stream.keyframes if k > 40]


def test_the_window_holds_the_latest_two_and_draws_the_others_by_their_losses() -> None:
    stream = memory()
    stream.keyframes, stream.latest = [0, 10, 20, 30, 40, 50], 55
    stream.losses = {0: 1.0, 10: 1.0, 20: 4.0, 30: 0.0, 40: 4.0, 50: 9.0, 55: 9.0}
    counts: Counter[int] = Counter()
    for step in range(400):
        window = stream.window(step)
        assert len(window) == len(set(window)) == 5
        assert window[-2:] == [50, 55]
        counts.update(window[:3])
    assert counts[20] > 0.9 * 400
    assert counts[40] > 0.9 * 400
    assert counts[30] < 20
    assert 100 < counts[0] < 300
    first = [stream.window(step) for step in range(50)]
    assert first == [stream.window(step) for step in range(50)]
    assert len({tuple(sorted(w)) for w in first}) > 1


def test_a_keyframe_that_is_the_latest_is_in_the_window_once() -> None:
    stream = memory()
    assert stream.window(0) == []
    stream.advance(0, lambda frame: 1.0)
    assert stream.window(0) == [0]
    stream.advance(5, lambda frame: 0.0)
    assert stream.window(5) == [0, 5]
    stream.advance(8, lambda frame: 1.0)
    assert stream.window(8) == [0, 5, 8]
    stream.advance(9, lambda frame: 1.0)
    assert stream.window(9) == [0, 5, 9]  # 8 was no keyframe: it is gone


def test_the_same_seed_and_map_decide_alike_and_a_resumed_stream_goes_on() -> None:
    whole, mapper = memory(), Mapper()
    expected = mapper.run(whole, range(60))
    again = Mapper().run(memory(), range(60))
    assert again == expected
    assert Mapper().run(memory(seed=1), range(60)) != expected

    part, mapper = memory(), Mapper()
    head = mapper.run(part, range(23))
    resumed = memory()
    resumed.load_state(part.state())
    tail = mapper.run(resumed, range(23, 60))
    assert head + tail == expected
    assert resumed.state() == whole.state()
    assert json.loads(json.dumps(whole.state()))["keyframes"] == whole.keyframes  # plain data


def test_the_clock_by_time_and_by_frames() -> None:
    by_frames = memory(frames=10, steps_per_frame=3)
    assert [by_frames.revealed(s) for s in (0, 2, 3, 26, 27, 900)] == [1, 1, 2, 9, 10, 10]
    times = KeyframeMemory([5.0, 5.5, 7.0], replace(SCHEDULE, frame_rate=10.0, steps_per_frame=2), 0)
    assert [times.revealed(s) for s in (0, 9, 10, 39, 40)] == [1, 1, 2, 2, 3]


def test_frames_pass_while_a_keyframe_is_learnt() -> None:
    stream = memory()
    taken = [stream.advance(step, lambda frame: 0.0) for step in range(12)]
    assert [t for t in taken if t is not None] == [0, 5, 8, 11]
    stream = memory()
    taken = [stream.advance(step, lambda frame: 1.0) for step in range(8)]
    assert [t for t in taken if t is not None] == [0, 5, 6, 7]
    assert stream.keyframes == [0]


def test_long_gaps_make_keyframes_and_unusable_frames_are_passed_over() -> None:
    stream = memory(max_gap=1.0)
    for step in range(40):
        stream.advance(step, lambda frame: 1.0)
    assert stream.keyframes[:3] == [0, 11, 22]
    stream = memory(frames=8)
    for step in range(20):
        stream.advance(step, lambda frame: 1.0, usable=lambda frame: frame not in (0, 6, 7))
    assert stream.keyframes == [1]
    assert stream.latest == 5


def test_the_map_is_remembered_before_the_first_frame_after_a_keyframe() -> None:
    stream, calls = memory(), []
    for step in range(10):
        stream.advance(step, lambda frame: 0.0 if frame == 7 else 1.0, remember=lambda s=step: calls.append(s))
    assert calls == [0, 5]  # frame 7 became a keyframe at step 7: the next frame comes at step 10


def test_losses_that_say_nothing_are_not_kept() -> None:
    stream = memory()
    stream.advance(0, lambda frame: 1.0)
    stream.record(0, float("nan"))
    stream.record(3, 1.0)
    assert stream.losses == {}


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"frame 2 at 0\.5 s follows one at 1 s: frames must come in temporal order"):
        KeyframeMemory([0.0, 1.0, 0.5], SCHEDULE, 0)
    with pytest.raises(DataError, match="at least one frame"):
        KeyframeMemory([], SCHEDULE, 0)
    with pytest.raises(DataError, match="not a finite number"):
        KeyframeMemory([0.0, float("inf")], SCHEDULE, 0)
    with pytest.raises(ConfigError, match="a window of 1 frames is too small"):
        replace(SCHEDULE, window=1)
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        replace(SCHEDULE, steps_on_frame=0)
    with pytest.raises(ConfigError, match=r"must be in \[0, 1\], got 2"):
        replace(SCHEDULE, min_agreement=2.0)
    stream = memory(frames=5)
    stream.load_state({"keyframes": [0, 9], "latest": 9, "losses": {}, "due": 0})
    with pytest.raises(DataError, match="was trained on frame 9 of its sequence, this one has 5 frames"):
        stream.advance(30, lambda frame: 1.0)


def test_seeds_of_steps_differ() -> None:
    assert len({step_seed(seed, step) for seed in range(20) for step in range(500)}) == 10_000


def test_seeds_of_processes_differ_in_the_bits_that_a_generator_takes() -> None:
    seeds = {step_seed(0, step, process) % (1 << 32) for process in range(64) for step in range(2000)}
    assert len(seeds) == 64 * 2000
    draws = [torch.rand(4, generator=torch.Generator().manual_seed(step_seed(0, 5, p))).tolist() for p in range(3)]
    assert draws[0] != draws[1] != draws[2] != draws[0]
    assert step_seed(7, 11, 0) == step_seed(7, 11)
