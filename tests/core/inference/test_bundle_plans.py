"""Plans of bundles: the same images within what is stated, and never of other tensors than the present ones."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from bundles import RENDERED, with_scene
from torch import Tensor

from eugen_nerf.core import BundledGraph, ConfigError, plan_bundle
from eugen_nerf.core.bundles.distance_bundle import DistanceBundle
from eugen_nerf.core.inference import bundle_plans

pytestmark = pytest.mark.processor


def _psnr(a: Tensor, b: Tensor) -> float:
    error = float((a - b).double().square().mean())
    return -10 * math.log10(error) if error else math.inf


def _plans(field: torch.nn.Module) -> list[object]:
    return [part.plan for part in field.modules() if isinstance(part, BundledGraph)]


@pytest.mark.parametrize("kind", RENDERED)
def test_images_hardly_change(kind: str) -> None:
    field = with_scene(kind)
    exact = [field.render(camera) for camera in field.cameras]
    plans = plan_bundle(field)
    assert "network" in plans
    assert {n for n, p in field.named_modules() if isinstance(p, BundledGraph) and p.plan is not None} == set(plans)
    planned = [field.render(camera) for camera in field.cameras]
    error = _psnr(torch.stack([i.colour for i in exact]), torch.stack([i.colour for i in planned]))
    assert error >= bundle_plans.MIN_PSNR - 3  # of the views that were looked at, in as many pixels


@pytest.mark.parametrize("kind", RENDERED)
def test_proposals_and_deformations_are_planned_too(kind: str) -> None:
    field = with_scene(kind)
    plan_bundle(field)
    assert all(plan is not None for plan in _plans(field))


def test_no_plan_survives_its_tensors() -> None:
    field = with_scene(RENDERED[0])
    plan_bundle(field)
    assert all(plan is None for plan in _plans(copy.deepcopy(field)))
    assert all(plan is None for plan in _plans(field.cast(torch.bfloat16)))
    assert all(plan is not None for plan in _plans(field)), "copies leave it as it is"
    field.load_state_dict(field.state_dict())
    assert all(plan is None for plan in _plans(field))
    plan_bundle(field)
    field.to(torch.float64)
    assert all(plan is None for plan in _plans(field))


def test_an_image_that_changes_too_much_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_plans, "machine_plan", lambda device: ("eager", "bfloat16"))
    monkeypatch.setattr(bundle_plans, "MIN_PSNR", math.inf)
    field = with_scene(RENDERED[0])
    exact = field.render(field.cameras[0]).colour
    assert {plan.dtype for plan in plan_bundle(field).values()} == {"float32"}
    torch.testing.assert_close(field.render(field.cameras[0]).colour, exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("best", [0, 1])
def test_another_gpu_has_the_networks_where_images_are_faster_so(monkeypatch: pytest.MonkeyPatch, best: int) -> None:
    """Where there is no adapter at all, the plans that are tried for it fall back and say why."""
    monkeypatch.setattr(bundle_plans, "has_other_gpu", lambda device: True)
    monkeypatch.setattr(bundle_plans, "medians", lambda seconds: {name: int(name) != best for name in seconds})
    field = with_scene("moving")
    exact = field.render(field.cameras[0]).colour
    plans = plan_bundle(field)
    assert len(plans) == 2
    for plan in plans.values():
        assert (plan.backend == "wgpu" or str(plan.fallback).startswith("not wgpu: ")) == (best == 1)
    assert _plans(field) == list(plans.values())
    torch.testing.assert_close(field.render(field.cameras[0]).colour, exact, rtol=0, atol=1e-3)
    plan_bundle(field, adapters=False)
    assert all(plan.fallback is None and plan.backend != "wgpu" for plan in _plans(field))  # type: ignore[attr-defined]


def test_gradients_are_those_of_the_network() -> None:
    field = next(f for f in map(with_scene, RENDERED) if isinstance(f, DistanceBundle))
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    expected = field.distance_and_gradient(points)[1]
    plan_bundle(field)
    assert torch.equal(field.distance_and_gradient(points)[1], expected)


def test_what_cannot_be_rendered_is_refused() -> None:
    field = with_scene(RENDERED[0])
    field.scene = None
    with pytest.raises(ConfigError, match="without a renderer"):
        plan_bundle(field)
