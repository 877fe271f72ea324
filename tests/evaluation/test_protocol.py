"""Which views a protocol scores, and what it refuses."""

import dataclasses

import pytest

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.evaluation.protocol import Protocol, Timing


def test_all_views_by_default() -> None:
    assert Protocol().view_indices(5) == [0, 1, 2, 3, 4]


def test_stride_then_limit_spread_evenly() -> None:
    assert Protocol(stride=2).view_indices(5) == [0, 2, 4]
    assert Protocol(limit=3).view_indices(101) == [0, 50, 100]
    assert Protocol(stride=10, limit=2).view_indices(101) == [0, 100]
    assert Protocol(limit=9).view_indices(2) == [0, 1]


def test_named_views_keep_their_order() -> None:
    assert Protocol(views=(3, 0)).view_indices(4) == [3, 0]
    with pytest.raises(ConfigError, match="views 0 to 3"):
        Protocol(views=(4,)).view_indices(4)
    with pytest.raises(ConfigError, match="holds no view"):
        Protocol().view_indices(0)


@pytest.mark.parametrize(
    "setting",
    [{"split": "train"}, {"stride": 0}, {"limit": 0}, {"lpips_net": "resnet"}, {"eight_bit": False}, {"ssim_sigma": 2}],
)
def test_protocol_refusals(setting: dict) -> None:
    with pytest.raises(ConfigError):
        Protocol(**setting)


@pytest.mark.parametrize("setting", [{"repeats": 0}, {"num_queries": 0}, {"chunk_size": 0}, {"warmup": -1}])
def test_timing_refusals(setting: dict) -> None:
    with pytest.raises(ConfigError):
        Timing(**setting)


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Protocol().stride = 2  # type: ignore[misc]
