"""A training that has diverged ends, instead of carrying on to its last step."""

from __future__ import annotations

import pytest
import torch
from tiny_models import make_model

from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.graph_model import DIVERGENCE_CHECK_INTERVAL


def batch_metrics(method: str, colour: float, count: int, *, training: bool = True) -> None:
    model = make_model(method).train(training)
    outputs = {"rgb": torch.full((5, 3), colour)}
    for _ in range(count):
        model.get_metrics_dict(outputs, {"image": torch.zeros(5, 3)})


@pytest.mark.parametrize("method", ["mip", "zip"])
@pytest.mark.parametrize("colour", [float("nan"), float("inf")])
def test_colours_that_are_no_numbers_end_training(method: str, colour: float) -> None:
    with pytest.raises(
        RunError, match=f"diverged: after {DIVERGENCE_CHECK_INTERVAL} steps .*optimizer.lr.*start linear"
    ):
        batch_metrics(method, colour, DIVERGENCE_CHECK_INTERVAL)


def test_nothing_else_does() -> None:
    batch_metrics("mip", 0.5, 2 * DIVERGENCE_CHECK_INTERVAL)
    batch_metrics("mip", float("nan"), 2 * DIVERGENCE_CHECK_INTERVAL, training=False)
