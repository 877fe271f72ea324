"""Losses and rendering in contracted space: values against numpy, and which loss trains which part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import RaySamples
from tiny_models import make_model, make_rays
from torch import Tensor

from eugen_nerf.core import EvaluationMode
from eugen_nerf.fields.radiance_field import FieldOutputs
from eugen_nerf.methods.proposals import Round
from eugen_nerf.methods.unbounded_model import UnboundedModel, edges

BOTH = ("mip", "zip")
Array = np.ndarray


def step(model: UnboundedModel, rays: int = 24) -> tuple[dict[str, Any], dict[str, Tensor], Tensor]:
    """Outputs, losses and the target colours."""
    image = torch.rand(rays, 3, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    outputs = model(make_rays(rays))
    return outputs, model.get_loss_dict(outputs, {"image": image}), image


def array(values: Tensor) -> Array:
    return values.detach().double().numpy()


@pytest.mark.parametrize("name", BOTH)
def test_each_loss_trains_its_part(name: str) -> None:
    """Proposals learn from the loss of their own alone; colour and compactness train the final field alone."""
    model = make_model(name, variant="eugen", proposal_variant="eugen").train()
    parameters = {key: p for key, p in model.named_parameters() if key != "device_indicator_param"}
    proposals = {key for key in parameters if key.startswith("proposals.")}
    field = set(parameters) - proposals
    grids = {key for key in parameters if key.endswith("grid.table")}
    colour = {key for key in field if ".head_" in key or ".rgb." in key or ".bottleneck." in key}
    expected = {
        "rgb_loss": field,
        "interlevel_loss": proposals,
        "distortion_loss": field - colour,
        "grid_decay": grids,
    }
    _, losses, _ = step(model)
    assert losses.keys() == (set(expected) if name == "zip" else set(expected) - {"grid_decay"})
    for loss, value in losses.items():
        gradients = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
        moved = {key for key, g in zip(parameters, gradients, strict=True) if g is not None and g.abs().max() > 0}
        assert moved == expected[loss], loss


@pytest.mark.parametrize("name", BOTH)
def test_in_evaluation_there_is_a_colour_loss_alone(name: str) -> None:
    outputs, losses, _ = step(make_model(name).eval())
    assert losses.keys() == {"rgb_loss"}
    assert outputs.keys() == {"rgb", "accumulation", "depth", "prop_depth_0", "prop_depth_1"}
    training_outputs, _, _ = step(make_model(name).train())
    assert training_outputs.keys() == {"rgb", "accumulation", "depth", "rounds"}
    assert len(training_outputs["rounds"]) == 3


@pytest.mark.parametrize("padding", [0.001, 0.3])
@pytest.mark.parametrize("name", BOTH)
def test_colour_loss_is_charbonniers(name: str, padding: float) -> None:
    outputs, losses, image = step(make_model(name, charbonnier_padding=padding).train())
    difference = array(outputs["rgb"]) - array(image)
    assert losses["rgb_loss"].item() == pytest.approx(np.sqrt(difference**2 + padding**2).mean(), rel=1e-5)


def mip_interlevel(rounds: list[tuple[Array, Array]]) -> float:
    """Eqs. 12 and 13 of arXiv 2111.12077, one interval at a time: what overlapping proposal weights do not cover."""
    *proposals, (t, w) = rounds
    total = 0.0
    for edges_hat, w_hat in proposals:
        values = []
        for ray in range(len(t)):
            for i in range(w.shape[1]):
                low, high = t[ray, i], t[ray, i + 1]
                overlap = (edges_hat[ray, :-1] < high) & (edges_hat[ray, 1:] > low)
                bound = w_hat[ray][overlap].sum()
                values.append(max(0, w[ray, i] - bound) ** 2 / (w[ray, i] + 1e-7))
        total += np.mean(values)
    return total


def zip_interlevel(rounds: list[tuple[Array, Array]], halfwidths: tuple[float, ...]) -> float:
    """Eq. 5 of arXiv 2304.06706 with the blurred step function summed up on a fine grid."""
    *proposals, (t, w) = rounds
    total = 0.0
    for (edges_hat, w_hat), r in zip(proposals, halfwidths, strict=True):
        values = []
        for ray in range(len(t)):
            cumulated = np.concatenate([[0], np.cumsum(w[ray])])
            nodes = (np.arange(4000) + 0.5) / 4000 * 2 * r - r
            blurred = np.array([np.interp(q + nodes, t[ray], cumulated).mean() for q in edges_hat[ray]])
            target = np.diff(blurred)
            values += list(np.maximum(0, target - w_hat[ray]) ** 2 / (w_hat[ray] + 1e-7))
        total += np.mean(values)
    return total


def distortion(t: Array, w: Array) -> float:
    """Eq. 15 of arXiv 2111.12077 as the double sum that it is."""
    middle, width = (t[:, 1:] + t[:, :-1]) / 2, np.diff(t, axis=1)
    far = np.abs(middle[:, :, None] - middle[:, None, :]) * w[:, :, None] * w[:, None, :]
    return float((far.sum(axis=(1, 2)) + (w**2 * width).sum(axis=1) / 3).mean())


@pytest.mark.parametrize("name", BOTH)
def test_losses_along_the_ray(name: str) -> None:
    model = make_model(name, interlevel_loss_mult=0.7, distortion_loss_mult=3.0).train()
    with torch.no_grad():  # a final field that its proposals cover already would leave nothing to bound
        model.field.network.layer("density").weight.mul_(6)
        model.field.network.layer("density").bias.add_(3)
    outputs, losses, _ = step(model)
    rounds: list[Round] = outputs["rounds"]
    plain = [(array(edges(r.samples)), array(r.weights)[..., 0]) for r in rounds]
    assert [w.shape[1] for _, w in plain] == [8, 7, 6]
    expected = mip_interlevel(plain) if name == "mip" else zip_interlevel(plain, model.config.interlevel_blurs)
    assert expected > 1e-5
    assert losses["interlevel_loss"].item() == pytest.approx(0.7 * expected, rel=2e-3)
    assert losses["distortion_loss"].item() == pytest.approx(3 * distortion(*plain[-1]), rel=1e-4)


def test_grid_decay() -> None:
    """Sum over grids and levels of the mean square, so that coarse levels are not lost among fine ones."""
    model = make_model("zip", grid_decay_mult=0.5).train()
    _, losses, _ = step(model)
    expected = 0.0
    for field in (*model.proposals, model.field):
        start, table = 0, array(field.grid.table)
        for n in field.grid.resolutions:
            rows = min(-(-(n**3) // 8) * 8, 1024)
            expected += (table[start : start + rows] ** 2).mean()
            start += rows
        assert start == len(table)
    assert losses["grid_decay"].item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_training_metric() -> None:
    model = make_model("mip").train()
    outputs, _, image = step(model)
    found = model.get_metrics_dict(outputs, {"image": image})
    error = ((array(outputs["rgb"]) - array(image)) ** 2).mean()
    assert found["psnr"].item() == pytest.approx(-10 * np.log10(error), rel=1e-5)


# ---- rendering


def evaluations_of(model: UnboundedModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[RaySamples, FieldOutputs]]:
    """Samples and outputs of the final field's evaluations; filled as the model renders."""
    evaluations: list[tuple[RaySamples, FieldOutputs]] = []
    original = model.field.evaluate

    def evaluate(samples: RaySamples, mode: EvaluationMode, **options: Any) -> FieldOutputs:
        outputs = original(samples, mode, **options)
        evaluations.append((samples, outputs))
        return outputs

    monkeypatch.setattr(model.field, "evaluate", evaluate)
    return evaluations


@pytest.mark.parametrize("name", BOTH)
def test_pixels_are_the_samples_composited(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and colours of the field, by numpy; behind the scene the last sample's colour."""
    model = make_model(name).eval()
    evaluations = evaluations_of(model, monkeypatch)
    with torch.no_grad():
        outputs = model(make_rays())
    ((samples, found),) = evaluations
    density, colour = (array(value) for value in found.values())
    if density.shape[-1] == 3:
        density, colour = colour, density
    optical = density[..., 0] * array(samples.frustums.ends - samples.frustums.starts)[..., 0]
    before = np.cumsum(optical, axis=1) - optical
    weights = np.exp(-before) * (1 - np.exp(-optical))
    total = weights.sum(axis=1)
    expected = (weights[..., None] * colour).sum(axis=1) + (1 - total)[:, None] * colour[:, -1]
    np.testing.assert_allclose(outputs["rgb"], np.clip(expected, 0, 1), atol=1e-5)
    np.testing.assert_allclose(outputs["accumulation"][:, 0], total, atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(("background", "value"), [("white", 1.0), ("black", 0.0), ("random", 0.0)])
def test_behind_nothing_is_the_background(name: str, background: str, value: float) -> None:
    model = make_model(name, background_color=background).eval()
    model.field.density_bias = -1e4
    with torch.no_grad():
        outputs = model(make_rays())
    assert outputs["accumulation"].max() == 0
    assert torch.equal(outputs["rgb"], torch.full((5, 3), value))


@pytest.mark.parametrize("name", BOTH)
def test_the_size_of_chunks_does_not_matter(name: str) -> None:
    model = make_model(name).eval()
    bundle = make_rays(30).reshape((5, 6))
    images = []
    for size in (30, 7, 1):
        model.config.eval_num_rays_per_chunk = size
        images.append(model.get_outputs_for_camera_ray_bundle(bundle))
    for image in images[1:]:
        assert image.keys() == images[0].keys()
        for key, pixels in image.items():
            torch.testing.assert_close(pixels, images[0][key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_the_planes_hold_in_training_and_evaluation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(name, near_plane=0.5, far_plane=7.0)
    evaluations = evaluations_of(model, monkeypatch)
    for training in (True, False):
        rays = make_rays()
        rays.nears = rays.fars = None
        model.train(training)(rays)
        frustums = evaluations[-1][0].frustums
        assert 0.5 * (1 - 1e-5) <= frustums.starts.min() < 3
        assert 3 < frustums.ends.max() <= 7 * (1 + 1e-4)
