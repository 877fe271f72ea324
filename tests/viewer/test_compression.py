"""Live compression: quick, exact at full width, worse and cheaper with fewer features, and saved as a run."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from threading import Lock, Thread

import pytest
import torch

from eugen_nerf.conversion.budget.measure import query_macs
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.core import DenseLinear
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.fitting.importance import LayerMoments
from eugen_nerf.core.least_squares import MomentSums, greedy_columns
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.rendering.planning import plan_model, plans_of
from eugen_nerf.methods.runs.loading import load_run
from eugen_viewer.panels.compression import LiveCompression
from eugen_viewer.panels.curve_plots import front_plot
from eugen_viewer.panels.panel_compress import facts
from eugen_viewer.panels.refit import fitted_layer
from eugen_viewer.shown_runs import ShownRun, open_run


@pytest.fixture(scope="module")
def opened(tiny_dense_run: Path) -> ShownRun:
    return open_run(tiny_dense_run, "dense", device="cpu", data=None)


@pytest.fixture
def live(opened: ShownRun, gathered: LiveCompression) -> LiveCompression:
    fresh = copy.copy(gathered)
    fresh.student = copy.deepcopy(gathered.student)
    fresh.widths = copy.deepcopy(gathered.widths)
    return fresh


@pytest.fixture(scope="module")
def gathered(opened: ShownRun) -> LiveCompression:
    compression = LiveCompression(opened.run)
    reported: list[float] = []
    compression.gather(lambda share, what: reported.append(share))
    assert reported == sorted(reported)
    return compression


def wide_layer() -> tuple[DenseLinear, LayerMoments]:
    torch.manual_seed(0)
    layer = DenseLinear(63, 256, "relu").requires_grad_(False)
    x = torch.randn(4096, 63)
    sums = MomentSums(256, 256)
    sums.add(layer(x), layer(x))
    return layer, LayerMoments(sums, torch.eye(256, dtype=torch.float64))


def test_a_fit_from_moments_is_least_squares_on_the_samples() -> None:
    layer, moments = wide_layer()
    path = greedy_columns(moments.outputs, 256, moments.metric)
    refitted = fitted_layer(layer, moments, path, 40)
    x = torch.randn(4096, 63, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(0)
    DenseLinear(63, 256, "relu")
    inputs = torch.randn(4096, 63)
    y = layer(inputs).double()
    phi = torch.cat([y[:, path[:40]], torch.ones(len(y), 1)], 1)
    exact = torch.linalg.lstsq(phi, y).solution
    assert torch.allclose(refitted(inputs).double(), phi @ exact, atol=2e-3)
    assert refitted(x).shape == (4096, 256)


def test_features_are_nested_and_errors_fall_with_their_number() -> None:
    layer, moments = wide_layer()
    path = greedy_columns(moments.outputs, 256, moments.metric)
    small, large = (fitted_layer(layer, moments, path, m) for m in (16, 64))
    assert torch.equal(small.projection, large.projection[:16])  # type: ignore[index]
    x = torch.randn(1000, 63, generator=torch.Generator().manual_seed(1))
    errors = [
        float((fitted_layer(layer, moments, path, m)(x) - layer(x)).square().mean()) for m in (8, 32, 128, 200, 256)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0


def test_at_full_width_the_preview_is_the_dense_run(opened: ShownRun, live: LiveCompression) -> None:
    rays = opened.run.pipeline.datamanager.eval_dataset.cameras.generate_rays(0, keep_shape=True).flatten()[:50]  # type: ignore[union-attr]
    assert live.student is not None
    with torch.no_grad():
        assert torch.equal(live.student(rays)["rgb"], opened.model(rays)["rgb"])
    now = live.predicted()
    assert now.speedup == 1
    assert now.error == pytest.approx(0, abs=1e-9)
    with pytest.raises(ConfigError, match="lower some numbers of features"):
        live.save()


def test_fewer_features_change_picture_and_numbers_and_going_back_restores_them(
    opened: ShownRun, live: LiveCompression
) -> None:
    rays = opened.run.pipeline.datamanager.eval_dataset.cameras.generate_rays(0, keep_shape=True).flatten()[:50]  # type: ignore[union-attr]
    assert live.student is not None
    (group,) = live.widths
    (layer, *_), before = list(live.widths[group]), live.predicted()
    changed = live.set({group: {layer: 3}})
    assert changed == [f"{name}.{layer}" for name in live._gathered_preview().groups[group]]
    assert len(changed) == 2  # coarse and fine share their widths
    now = live.predicted()
    assert now.multiply_adds < before.multiply_adds
    assert now.multiply_adds == query_macs(live.student)
    assert now.error > before.error
    with torch.no_grad():
        assert not torch.equal(live.student(rays)["rgb"], opened.model(rays)["rgb"])
        live.set({group: {layer: before_width(live, group, layer)}})
        assert torch.equal(live.student(rays)["rgb"], opened.model(rays)["rgb"])
    assert live.set({group: {}}) == []


def before_width(live: LiveCompression, group: str, layer: str) -> int:
    return len(live._gathered_preview().curves[group][layer]) - 1


def test_a_preview_beside_planned_networks_has_plans_of_its_own_weights(tiny_dense_run: Path) -> None:
    """As fast as what it is compared with, and never the picture of layers that are gone."""
    run = load_run(tiny_dense_run, device="cpu")
    assert isinstance(run.model, GraphModel)
    bundle = run.pipeline.datamanager.eval_dataset.cameras.generate_rays(0, keep_shape=True).flatten()[:50]  # type: ignore[union-attr]
    rays = run.model.collider(bundle)  # type: ignore[misc]
    plan_model(run.model, rays)
    compression = LiveCompression(run)
    compression.gather()
    student = compression.student
    assert student is not None
    assert plans_of(student).keys() == plans_of(run.model).keys() == {"coarse", "fine"}
    (group,) = compression.widths
    with torch.no_grad():
        before = student(rays)["rgb"]
        compression.set({group: dict.fromkeys(compression.widths[group], 2)})
        planned = student(rays)["rgb"]
        assert plans_of(student).keys() == {"coarse", "fine"}
        without = copy.deepcopy(student)
        assert not plans_of(without)
        rounding = float((planned - without(rays)["rgb"]).abs().max())
        assert rounding < 1e-5
        assert float((planned - before).abs().max()) > 20 * max(rounding, 1e-6)


def test_a_speed_up_wanted_is_reached_at_the_least_predicted_error(live: LiveCompression) -> None:
    live.set(live.widths_at_speedup(1.3))
    now = live.predicted()
    assert now.speedup >= 1.3
    best = min(p.error for p in live.front() if p.multiply_adds <= now.multiply_adds)
    assert now.error == pytest.approx(best, rel=1e-6)
    with pytest.raises(ConfigError, match="out of reach"):
        live.widths_at_speedup(2 * live.max_speedup())
    image = front_plot(live.front(), now)
    assert image.shape[2] == 3
    assert (image != front_plot(live.front(), live.front()[0])).any()
    assert f"**{now.speedup:.2f}x**" in facts(now, 0.02)


def test_widths_that_cannot_be_are_refused(live: LiveCompression) -> None:
    (group,) = live.widths
    layer = next(iter(live.widths[group]))
    with pytest.raises(ConfigError, match="no field 'sky'"):
        live.set({"sky": {}})
    with pytest.raises(ConfigError, match="no layer 'roof'"):
        live.set({group: {"roof": 3}})
    with pytest.raises(ConfigError, match="features of 32 rows: choose 1 to 32"):
        live.set({group: {layer: 10_000}})
    with pytest.raises(RunError, match="not been gathered"):
        LiveCompression(live.run).predicted()


def test_what_is_saved_is_a_run_with_these_widths(live: LiveCompression, opened: ShownRun) -> None:
    (group,) = live.widths
    wanted = {name: max(2, width // 3) for name, width in live.widths[group].items()}
    live.set({group: wanted})
    reported: list[str] = []
    path = live.save(lambda share, what: reported.append(what))
    assert len(reported) == 1 + 2 * len(wanted)
    run = load_run(path, device="cpu")
    assert query_macs(run.model) == live.predicted().multiply_adds
    record = json.loads(path.with_name("distill.json").read_text())
    assert record["viewer"]["num_features"] == {"coarse": wanted, "fine": wanted}
    assert path.resolve().parents[2] == Path(str(opened.run.path.resolve().parents[2]) + "-distilled")


def test_a_hybrid_offers_its_dense_layers_alone_and_other_runs_say_why_they_offer_none(
    opened: ShownRun, tiny_eugen_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hybrid = LiveCompression(load_run(tiny_eugen_run, device="cpu"))
    assert 0 < hybrid.replaceable() < LiveCompression(opened.run).replaceable()
    with pytest.raises(ConfigError, match="nothing"):
        LiveCompression(opened.run, DistillConfig(layers=("nothing",))).replaceable()
    monkeypatch.setattr("eugen_viewer.panels.compression.has_graphs", lambda run: False)
    with pytest.raises(RunError, match="by eugen-distill only"):
        hybrid.replaceable()


def test_two_runs_saved_at_once_have_two_places(live: LiveCompression) -> None:
    live.set(live.widths_at_speedup(1.5))
    assert len({live.save(), live.save()}) == 2


def test_a_run_is_not_copied_while_it_is_rendered(opened: ShownRun) -> None:
    lock = Lock()
    work = Thread(target=LiveCompression(opened.run, lock=lock).replaceable)
    with lock:
        work.start()
        work.join(0.5)
        assert work.is_alive()
    work.join(30)
    assert not work.is_alive()


def test_a_stock_run_is_compressed_through_its_copy(tiny_stock_run: Path) -> None:
    live = LiveCompression(load_run(tiny_stock_run, device="cpu"))
    live.gather()
    live.set(live.widths_at_speedup(2.0))
    assert live.predicted().speedup >= 2.0
