"""New connections: many at once after a quiet time, then some a second, none beyond the longest wait."""

from __future__ import annotations

import pytest

from eugen_viewer.server.admission import Admission


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _admission(clock: _Clock) -> Admission:
    return Admission(rate=4.0, burst=10, longest=2.0, clock=clock)


def test_some_come_at_once_and_later_ones_one_after_another() -> None:
    admission = _admission(_Clock())
    assert [admission.wait() for _ in range(10)] == [0.0] * 10
    assert [admission.wait() for _ in range(8)] == pytest.approx([0.25 * i for i in range(1, 9)])


def test_who_would_wait_too_long_is_turned_away_and_takes_no_place() -> None:
    clock = _Clock()
    admission = _admission(clock)
    assert sum(admission.wait() is not None for _ in range(100)) == 10 + 8
    clock.now += 0.25
    assert admission.wait() == pytest.approx(2.0)
    assert admission.wait() is None


def test_a_quiet_time_lets_as_many_in_at_once_as_at_first_and_no_more() -> None:
    clock = _Clock()
    admission = _admission(clock)
    while admission.wait() is not None:
        pass
    clock.now += 1e6
    assert [admission.wait() for _ in range(11)] == [*[0.0] * 10, pytest.approx(0.25)]


def test_over_any_time_they_are_limited() -> None:
    clock = _Clock()
    admission, let_in = _admission(clock), 0
    for _ in range(4000):  # 40 s in which a connection comes every hundredth
        clock.now += 0.01
        let_in += admission.wait() is not None
    assert let_in <= 10 + 40 * 4 + 2 * 4
    assert let_in >= 40 * 4


def test_who_is_thrown_out_makes_later_ones_wait_and_turns_nobody_away() -> None:
    clock = _Clock()
    admission = _admission(clock)
    admission.punish()
    assert [admission.wait() for _ in range(8)] == [*[0.0] * 7, pytest.approx(0.25)]
    for _ in range(100):
        admission.punish()
    assert admission.wait() == pytest.approx(2.0)
    clock.now += 1e6
    assert [admission.wait() for _ in range(11)] == [*[0.0] * 10, pytest.approx(0.25)]
