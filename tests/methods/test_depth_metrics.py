"""Errors of rendered depth, counted by hand."""

from __future__ import annotations

import math

import pytest
import torch

from eugen_nerf.methods.runs.depth_metrics import depth_metrics


def test_errors_are_of_pixels_with_a_measured_depth() -> None:
    truth = torch.tensor([[1.0, 2.0, 3.0, 4.0, math.inf]])
    rendered = torch.tensor([[1.01, 2.09, 9.0, 4.02, 5.0]])
    hit = torch.tensor([[True, True, False, True, True]])
    assert depth_metrics(rendered, truth, hit) == {
        "depth_l1_cm": pytest.approx((1 + 9 + 2) / 3, rel=1e-4),
        "depth_within_5cm": 0.5,
        "depth_missed": 0.25,
    }


def test_an_image_without_measured_depth_has_no_errors() -> None:
    values = depth_metrics(torch.ones(2, 2), torch.full((2, 2), math.nan), torch.ones(2, 2, dtype=torch.bool))
    assert all(math.isnan(value) for value in values.values())
