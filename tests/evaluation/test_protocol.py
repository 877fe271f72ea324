"""Which views a protocol scores, and what it refuses."""

import dataclasses

import pytest

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.evaluation.protocol import Protocol, Timing


def test_all_views_by_default() -> None:
    assert Protocol().view_indices(5) == [0, 1, 2, 3, 4]


def test_a_limit_spreads_evenly() -> None:
    assert Protocol(limit=3).view_indices(101) == [0, 50, 100]
    assert Protocol(limit=2).view_indices(7) == [0, 6]
    assert Protocol(limit=9).view_indices(2) == [0, 1]
    with pytest.raises(ConfigError, match="holds no view"):
        Protocol().view_indices(0)


@pytest.mark.parametrize("setting", [{"limit": 0}, {"frames_over_time": -1}])
def test_protocol_refusals(setting: dict) -> None:
    with pytest.raises(ConfigError):
        Protocol(**setting)


def test_numbers_of_queries_follow_the_device_where_none_are_given() -> None:
    assert (Timing().on("cpu").num_queries, Timing().on("cpu").chunk_size) == (32768, 4096)
    assert (Timing().on("cuda").num_queries, Timing().on("cuda").chunk_size) == (1 << 20, 1 << 18)
    given = Timing(num_queries=7, chunk_size=3)
    assert given.on("cuda") == given.on("cpu") == given


@pytest.mark.parametrize("setting", [{"repeats": 0}, {"num_queries": 0}, {"chunk_size": 0}, {"warmup": -1}])
def test_timing_refusals(setting: dict) -> None:
    with pytest.raises(ConfigError):
        Timing(**setting)


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Protocol().limit = 2  # type: ignore[misc]
