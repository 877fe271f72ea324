"""Bundles of every method's model put out what the model's own field does, and are written whole."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from nerfstudio.cameras.rays import Frustums, RaySamples
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.field_components.field_heads import FieldHeadNames
from tiny_runs import shrink_dnerf, shrink_ngp, shrink_unbounded
from torch import Tensor

from eugen_nerf.conversion.bundle_export import bundle_of, write_bundle
from eugen_nerf.core import ConfigError, EvaluationMode, load_bundle, save_bundle
from eugen_nerf.core.bundle_schema import BundleError
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.rendering.contraction import contract, contract_gaussian, contraction_scale
from eugen_nerf.fields.encoders import GaussianEncoder, MultisampleEncoder
from eugen_nerf.fields.hash import BoxEncoder
from eugen_nerf.fields.occupancy import evaluate_occupied
from eugen_nerf.methods.dnerf import EugenDNerfModel
from eugen_nerf.methods.graph_model import GraphModel

BOX = SceneBox(torch.tensor([[-1.5, -1.0, -1.2], [1.5, 1.3, 1.0]]))


def make_model(method: str, variant: str = "eugen", **changes: object) -> GraphModel:
    """A tiny model of a registered method; its grids hold something, and its biases are not zero."""
    config = copy.deepcopy(all_methods[method].pipeline.model)
    if "isdf" in method:
        config.network.trunk_width, config.network.num_features = 24, (10,)
    elif "dnerf" in method:
        shrink_dnerf(config)
    elif "ngp" in method:
        shrink_ngp(config)
    elif "360" in method or "zip" in method:
        shrink_unbounded(config)
    else:
        config.network.trunk_width, config.network.head_width = 24, 16
        config.network.num_features = (10,) * len(config.network.num_features)
    config.variant = variant
    for name, value in changes.items():
        setattr(config.network if hasattr(config.network, name) else config, name, value)
    torch.manual_seed(0)
    model: GraphModel = config.setup(scene_box=BOX, num_train_data=1, metadata={}).eval()
    for field in model.graph_fields().values():
        for name, parameter in field.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
        encoder = getattr(field, "encoder", None)
        if isinstance(encoder, MultisampleEncoder | BoxEncoder):
            torch.nn.init.normal_(encoder.grid.table, std=0.05)
    return model


def make_samples(spread: float = 1.0, shape: tuple[int, ...] = (7, 5)) -> RaySamples:
    """Samples at random points round the origin, with times."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(*shape, 3, generator=generator), dim=-1)
    frustums = Frustums(
        origins=spread * torch.randn(*shape, 3, generator=generator),
        directions=directions,
        starts=torch.full((*shape, 1), 0.5),
        ends=torch.full((*shape, 1), 0.7),
        pixel_area=torch.full((*shape, 1), 1e-3),
    )
    return RaySamples(frustums=frustums, times=torch.rand(*shape, 1, generator=generator))


def ask(bundle: BundledField, samples: RaySamples, scale: float | Tensor = 0.0) -> tuple[Tensor, Tensor | None]:
    """The bundle where the samples are."""
    frustums = samples.frustums
    moving = getattr(bundle, "deformation", None) is not None
    directions = frustums.directions if bundle.direction is not None else None
    with torch.no_grad():
        density, colour = bundle(frustums.get_positions(), directions, samples.times if moving else None, scale=scale)
    return density, colour


def agree(found: Tensor, truth: Tensor) -> None:
    assert found.shape == truth.shape
    assert truth.std() > 0, "a constant would prove nothing"
    assert (found - truth).abs().max() <= 1e-6 * truth.abs().max()


def agree_with_field(bundle: BundledField, truth: dict[FieldHeadNames, Tensor], *args: object) -> None:
    density, colour = ask(bundle, *args)  # type: ignore[arg-type]
    assert colour is not None
    agree(density, truth[FieldHeadNames.DENSITY])
    agree(colour, truth[FieldHeadNames.RGB].clamp(0, 1))


@pytest.mark.parametrize("variant", ["eugen", "dense", "lowrank"])
@pytest.mark.parametrize("method", ["eugen-nerf", "eugen-nerf-paper", "eugen-ngp", "eugen-dnerf", "eugen-dnerf-hash"])
def test_points_give_what_the_queried_module_gives(method: str, variant: str) -> None:
    """The whole query of methods that look at points: density after activation, colour after the sigmoid."""
    model, samples = make_model(method, variant), make_samples()
    with torch.no_grad():
        truth = model.query_module()(samples)
    agree_with_field(bundle_of(model), truth, samples)


@pytest.mark.parametrize(
    "changes", [{"degree": 2, "phi": "tanh"}, {"norm": True}, {"norm": True, "degree": 3, "phi": "sin"}]
)
def test_other_features_and_the_norm(changes: dict[str, object]) -> None:
    model, samples = make_model("eugen-dnerf", **changes), make_samples()
    with torch.no_grad():
        truth = model.query_module()(samples)
    agree_with_field(bundle_of(model), truth, samples)


def test_an_offset_that_is_not_anchored() -> None:
    model, samples = make_model("eugen-dnerf"), make_samples()
    model.deformation.anchored = False
    with torch.no_grad():
        truth = model.query_module()(samples)
    agree_with_field(bundle_of(model), truth, samples)
    anchored = ask(bundle_of(make_model("eugen-dnerf")), samples)[0]
    assert (anchored - truth[FieldHeadNames.DENSITY]).abs().max() > 1e-3 * anchored.max()


@pytest.mark.parametrize("variant", ["eugen", "dense"])
def test_signed_distance(variant: str) -> None:
    """Distance and its gradient at points."""
    model, points = make_model("eugen-isdf", variant), make_samples().frustums.get_positions()
    assert model.field.encoding.centre.abs().max() > 0
    truth, gradient = model.field.distance_and_gradient(points)
    bundle, asked = bundle_of(model), points.clone().requires_grad_()
    found = bundle(asked)
    agree(found, truth[..., None])
    (slope,) = torch.autograd.grad(found.sum(), asked)
    assert (slope - gradient).abs().max() <= 1e-5 * gradient.abs().max()


@pytest.mark.parametrize("variant", ["eugen", "dense"])
@pytest.mark.parametrize("scale", [0.0, 0.02, 0.5])
def test_mipnerf360_given_the_same_gaussians(variant: str, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole field, when the frustum's Gaussian is the isotropic one that the bundle is evaluated with."""
    model, samples = make_model("eugen-mipnerf360", variant), make_samples(2.0)

    def isotropic(encoder: GaussianEncoder, frustums: Frustums) -> tuple[Tensor, Tensor]:
        mean = frustums.get_positions()
        return contract_gaussian(mean, (scale**2 * torch.eye(3)).expand(*mean.shape, 3))

    monkeypatch.setattr(GaussianEncoder, "gaussians", isotropic)
    with torch.no_grad():
        truth = model.query_module()(samples)
    agree_with_field(bundle_of(model), truth, samples, scale)


@pytest.mark.parametrize("variant", ["eugen", "dense"])
@pytest.mark.parametrize("scale", [0.0, 0.02, 0.5])
def test_zipnerf_given_the_same_gaussians(variant: str, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole field, when all six Gaussians of a frustum are the isotropic one that the bundle is evaluated with."""
    model, samples = make_model("eugen-zipnerf", variant), make_samples(2.0)

    def six_alike(encoder: MultisampleEncoder, frustums: Frustums) -> tuple[Tensor, Tensor]:
        points = frustums.get_positions()[..., None, :].expand(*frustums.shape, 6, 3)
        return contract(points), (scale * contraction_scale(points)[..., 0]).clamp_min(1e-9)

    monkeypatch.setattr(MultisampleEncoder, "multisamples", six_alike)
    with torch.no_grad():
        truth = model.query_module()(samples)
    agree_with_field(bundle_of(model), truth, samples, scale)
    each = torch.full((*samples.frustums.shape, 1), scale)
    agree_with_field(bundle_of(model), truth, samples, each)


def test_encodings_put_out_the_same_bits() -> None:
    """Encodings of points are those of the fields exactly, in torch alone."""
    samples = make_samples()
    points, towards, none = samples.frustums.get_positions(), samples.frustums.directions, torch.zeros(7, 5, 1)
    for method in ("eugen-nerf", "eugen-nerf-paper", "eugen-ngp", "eugen-dnerf", "eugen-dnerf-hash", "eugen-isdf"):
        model = make_model(method)
        field, bundle = list(model.graph_fields().values())[-1], bundle_of(model)
        with torch.no_grad():
            position, *direction = field.encode(samples)
            assert torch.equal(bundle.position(points, none), position)
            if direction:
                assert torch.equal(bundle.direction(towards, none), direction[0])
            if isinstance(model, EugenDNerfModel):
                bend = bundle.deformation
                parts = bend.position(points, none), bend.time(samples.times, none)
                assert torch.equal(torch.cat(parts, dim=-1), model.deformation.encode(samples)[0])


def test_the_scale_matters_where_it_is_looked_at() -> None:
    samples = make_samples(2.0)
    for method, matters in (("eugen-mipnerf360", True), ("eugen-zipnerf", True), ("eugen-nerf", False)):
        bundle = bundle_of(make_model(method))
        assert (ask(bundle, samples, 0.3)[0] != ask(bundle, samples)[0]).any() == matters


def test_a_proposal_is_density_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = make_model("eugen-mipnerf360"), make_samples(2.0)
    mean = samples.frustums.get_positions()
    points = contract_gaussian(mean, torch.zeros(*mean.shape, 3))
    monkeypatch.setattr(GaussianEncoder, "gaussians", lambda *_: points)
    density, colour = ask(bundle_of(model, "proposal_0"), samples)
    assert colour is None
    with torch.no_grad():
        agree(density, model.graph_fields()["proposal_0"].get_density(samples)[0])


def test_fields_by_name() -> None:
    model, samples = make_model("eugen-dnerf"), make_samples()
    with torch.no_grad():
        truth = model.field_coarse(model_samples(model, samples))
    agree_with_field(bundle_of(model, "coarse"), truth, samples)
    with pytest.raises(ConfigError, match=r"no field 'rough'; there are deformation, coarse, fine"):
        bundle_of(model, "rough")
    with pytest.raises(ConfigError, match="'deformation' has offsets, no density: choose coarse, fine"):
        bundle_of(model, "deformation")


def model_samples(model: GraphModel, samples: RaySamples) -> RaySamples:
    return model.displace(samples, EvaluationMode.INFERENCE)  # type: ignore[attr-defined]


def test_outside_a_hash_fields_box_there_is_nothing() -> None:
    model, samples = make_model("eugen-dnerf-hash"), make_samples(20.0)
    density, _ = ask(bundle_of(model), samples)
    with torch.no_grad():
        truth = model.query_module()(samples)[FieldHeadNames.DENSITY]
    assert ((truth == 0) == (density == 0)).all()
    assert (truth == 0).float().mean() > 0.5


def test_empty_cells_stay_empty() -> None:
    model, samples = make_model("eugen-nerf", occupancy="hull", occupancy_resolution=6), make_samples(0.5)
    model.occupancy.cells.copy_(torch.rand(6, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.5)
    with torch.no_grad():
        outputs = evaluate_occupied(model.field_fine, samples, model.occupancy, EvaluationMode.INFERENCE)
        truth = outputs[FieldHeadNames.DENSITY]
    assert 0 < (truth == 0).float().mean() < 1
    agree(ask(bundle_of(model), samples)[0], truth)


def test_a_bundle_is_a_copy() -> None:
    model, samples = make_model("eugen-zipnerf"), make_samples(2.0)
    bundle = bundle_of(model)
    before = ask(bundle, samples)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    after = ask(bundle, samples)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["eugen-nerf", "eugen-dnerf-hash", "eugen-mipnerf360", "eugen-zipnerf"])
def test_written_and_read_it_is_the_same_bit_for_bit(method: str, tmp_path: Path) -> None:
    samples = make_samples(2.0)
    model = make_model(method)
    written = write_bundle(model, tmp_path / "bundle")
    read = load_bundle(tmp_path / "bundle")
    assert read.multiply_adds() == written.multiply_adds() == model.query_module().macs_per_query()
    expected, found = ask(written, samples, 0.1), ask(read, samples, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))  # type: ignore[arg-type]
    save_bundle(read, tmp_path / "again")
    for name in ("bundle.json", "weights.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "bundle" / name).read_bytes()


def test_a_distance_written_and_read(tmp_path: Path) -> None:
    points = make_samples().frustums.get_positions()
    written = write_bundle(make_model("eugen-isdf"), tmp_path / "bundle")
    assert torch.equal(written(points), load_bundle(tmp_path / "bundle")(points))


def test_onnx_lies_beside_it(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    write_bundle(make_model("eugen-dnerf"), tmp_path / "bundle", onnx=True)
    names = {p.name for p in (tmp_path / "bundle").iterdir()}
    assert names == {"bundle.json", "weights.safetensors", "network.onnx", "deformation.onnx"}
    load_bundle(tmp_path / "bundle")


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    model = make_model("eugen-nerf")
    with torch.no_grad():
        next(iter(model.field_fine.network.parameters())).fill_(float("nan"))
    with pytest.raises(BundleError, match="holds NaN or infinity"):
        write_bundle(model, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_samples_may_have_any_leading_shape() -> None:
    bundle = bundle_of(make_model("eugen-nerf"))
    samples = make_samples(shape=(2, 3, 4))
    whole = ask(bundle, samples)[0]
    assert whole.shape == (2, 3, 4, 1)
    torch.testing.assert_close(whole.flatten(0, 2), ask(bundle, samples.flatten())[0])
