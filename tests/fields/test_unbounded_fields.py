"""The fields of Mip-NeRF 360 and Zip-NeRF: what they put out, what they cost, how their layers are chosen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from frustums import random_samples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from eugen_nerf.core import DenseLinear, EUGenConfig, EUGenLinear, LayerSpec
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.networks.nerf_mlp import VARIANTS
from eugen_nerf.fields.encoders import GaussianEncoder, MultisampleEncoder
from eugen_nerf.fields.frustum_field import UnboundedField, UnboundedFieldConfig
from eugen_nerf.fields.mipnerf360 import MipNeRF360FieldConfig
from eugen_nerf.fields.zipnerf import ZipNeRFFieldConfig

DENSITY, RGB = FieldHeadNames.DENSITY, FieldHeadNames.RGB
MIP = MipNeRF360FieldConfig(
    trunk_layers=4,
    trunk_width=24,
    skips=(2,),
    bottleneck_width=12,
    head_width=16,
    num_features=(10,),
    position_frequencies=3,
    direction_frequencies=2,
)
ZIP = ZipNeRFFieldConfig(
    trunk_width=24,
    bottleneck_width=12,
    head_width=16,
    num_features=(10,),
    max_resolution=64,
    features_per_level=2,
    log2_table_size=10,
    direction_frequencies=2,
)
BOTH = {"mip": MIP, "zip": ZIP}
Config = MipNeRF360FieldConfig | ZipNeRFFieldConfig


def make_field(config: UnboundedFieldConfig, variant: str = "eugen", *, seed: int = 0) -> UnboundedField:
    """A field with random grids: at the start they hold next to nothing."""
    torch.manual_seed(seed)
    field = config.setup(variant=variant)
    if isinstance(config, ZipNeRFFieldConfig):
        torch.nn.init.normal_(field.grid.table, std=0.05)
    return field


def proposal(config: Config) -> Config:
    return replace(config, head_width=0, layers=("trunk_.*",), num_features=(5,))


def backward(field: UnboundedField) -> None:
    """A loss with another weight on each output, so that nothing cancels."""
    samples = random_samples(far=3.0)
    density, colour = field.get_density(samples)
    outputs = [density] if colour is None else [density, field.get_outputs(samples, colour)[RGB]]
    sum((v * torch.linspace(1, 2, v.numel()).view_as(v)).sum() for v in outputs).backward()


# ---- what comes out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", BOTH)
def test_density_and_colour(name: str, training: bool) -> None:
    field = make_field(BOTH[name]).train(training)
    outputs = field(random_samples(rays=5, samples=7, far=10.0))
    assert outputs[DENSITY].shape == (5, 7, 1)
    assert outputs[RGB].shape == (5, 7, 3)
    assert outputs[DENSITY].min() > 0
    assert all(v.std() > 1e-4 and torch.isfinite(v).all() for v in outputs.values())
    assert outputs[RGB].min() > -0.001
    assert outputs[RGB].max() < 1.001


def set_output(field: UnboundedField, name: str, value: float) -> None:
    """Makes one of the network's outputs a constant."""
    layer = field.network.layer(name)
    assert isinstance(layer, DenseLinear)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(value)


@pytest.mark.parametrize("raw", [-30.0, -1.5, 0.4, 8.0])
def test_activations(raw: float) -> None:
    """Of density softplus or the exponential after a bias of -1, of colour the padded sigmoid; scalar arithmetic."""
    samples = random_samples()
    for name, expected in (("mip", math.log1p(math.exp(raw - 1))), ("zip", math.exp(raw - 1))):
        field = make_field(BOTH[name]).eval()
        set_output(field, "density", raw)
        set_output(field, "rgb", raw)
        outputs = field(samples)
        colour = 1.002 / (1 + math.exp(-raw)) - 0.001
        torch.testing.assert_close(outputs[DENSITY], torch.full((6, 8, 1), expected), rtol=1e-5, atol=1e-12)
        torch.testing.assert_close(outputs[RGB], torch.full((6, 8, 3), colour), rtol=1e-5, atol=1e-7)
    other = make_field(replace(MIP, density_bias=2.0, rgb_padding=0.5)).eval()
    set_output(other, "density", raw)
    set_output(other, "rgb", 30.0)
    outputs = other(samples)
    torch.testing.assert_close(outputs[DENSITY][0, 0, 0].item(), math.log1p(math.exp(raw + 2)), rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(outputs[RGB], torch.full((6, 8, 3), 1.5))


def test_an_exponential_density_has_a_bounded_gradient() -> None:
    field = make_field(ZIP)
    set_output(field, "density", 60.0)
    field.get_density(random_samples(rays=1, samples=1))[0].sum().backward()
    assert field.network.layer("density").bias.grad.item() == pytest.approx(math.exp(15), rel=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", BOTH)
def test_a_proposal_is_density_alone(name: str, variant: str) -> None:
    field = make_field(proposal(BOTH[name]), variant).eval()
    samples = random_samples(rays=5, samples=7)
    density, nothing = field.get_density(samples)
    assert nothing is None
    assert density.shape == (5, 7, 1)
    assert density.min() > 0
    assert density.std() > 1e-4
    assert len(field.encode(samples)) == 1
    assert not [n for n in field.network.names if not n.startswith(("trunk", "density"))]
    assert field.direction_encoding is None


@pytest.mark.parametrize("name", BOTH)
def test_only_colour_depends_on_the_direction(name: str) -> None:
    field, samples = make_field(BOTH[name]).eval(), random_samples()
    features, directions = field.encode(samples)
    density, colour = field.network(features, directions)
    other_density, other_colour = field.network(features, directions.flip(0))
    torch.testing.assert_close(density, other_density)
    assert (colour - other_colour).abs().max() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", BOTH)
def test_evaluation_equals_training(name: str, variant: str) -> None:
    """Once the hexagons are the same; after a step, so that a plan of before would show."""
    field = make_field(BOTH[name], variant)
    with torch.no_grad():
        field.eval()(random_samples())
    optimizer = torch.optim.Adam(field.parameters(), lr=0.05)
    backward(field.train())
    optimizer.step()
    field.encoder.eval()
    in_training = field(random_samples())
    with torch.no_grad():
        in_evaluation = field.eval()(random_samples())
    for key in (DENSITY, RGB):
        torch.testing.assert_close(in_evaluation[key], in_training[key].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_outputs_of_any_leading_shape(name: str) -> None:
    field = make_field(BOTH[name]).eval()
    samples = random_samples(rays=12, samples=1)
    with torch.no_grad():
        column, flat = field(samples), field(samples.flatten())
    assert flat[DENSITY].shape == (12, 1)
    assert flat[RGB].shape == (12, 3)
    for key in (DENSITY, RGB):  # a hexagon is turned at odd places of the last dimension
        torch.testing.assert_close(column[key][::2, 0], flat[key][::2], rtol=1e-5, atol=1e-6)


# ---- sizes and costs


@pytest.mark.parametrize(
    "config",
    [
        MIP,
        replace(MIP, position_frequencies=8),
        MipNeRF360FieldConfig(trunk_width=16, trunk_layers=1, skips=()),
        ZIP,
        replace(ZIP, max_resolution=16),
        replace(ZIP, min_resolution=8, max_resolution=256, features_per_level=4),
        ZipNeRFFieldConfig(log2_table_size=10),
    ],
)
def test_position_width_is_the_encoders(config: Config) -> None:
    field = make_field(config)
    features = field.encode(random_samples(rays=2, samples=3))[0]
    assert config.position_width() == field.encoder.out_features == features.shape[-1]
    assert isinstance(
        field.encoder, GaussianEncoder if isinstance(config, MipNeRF360FieldConfig) else MultisampleEncoder
    )


def test_the_papers_sizes() -> None:
    """Widths of Sec. 3 and 4 of arXiv 2111.12077, and of Zip-NeRF's configuration, counted on paper."""
    mip, zipped = MipNeRF360FieldConfig(), ZipNeRFFieldConfig()
    assert mip.position_width() == 42 * 12
    assert (mip.trunk_layers, mip.trunk_width, mip.bottleneck_width, mip.head_width) == (8, 1024, 256, 128)
    assert zipped.resolutions() == tuple(16 * 2**k for k in range(10))
    assert zipped.position_width() == 10 * 5
    assert mip.shape().direction_width == zipped.shape().direction_width == 27


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", BOTH)
def test_multiply_adds_are_those_of_the_matrix_products_that_run(name: str, variant: str) -> None:
    field = make_field(BOTH[name], variant).eval()
    inputs = field.encode(random_samples(rays=4, samples=5))
    field.encode = lambda samples, outputs: inputs
    with torch.no_grad():
        field(random_samples(rays=4, samples=5))  # collapses the network
        with FlopCounterMode(display=False) as counter:
            field(random_samples(rays=4, samples=5))
    assert counter.get_total_flops() == 2 * 20 * field.macs_per_query()


def count_dense(config: Config) -> int:
    """Weights and biases of a dense network without a bottleneck."""
    position, trunk, head = config.position_width(), config.trunk_width, config.head_width
    total, width = 0, position
    for i in range(config.trunk_layers):
        total += (width + (position if i in config.skips else 0) + 1) * trunk
        width = trunk
    total += trunk + 1
    width += 3 + 6 * config.direction_frequencies
    for _ in range(config.head_layers):
        total += (width + 1) * head
        width = head
    return total + 3 * (width + 1)


def test_inference_parameters() -> None:
    without = [replace(config, bottleneck_width=0) for config in BOTH.values()]
    mip, zipped = (make_field(config, "dense") for config in without)
    assert mip.inference_parameters() == count_dense(without[0])
    # tiny-cuda-nn's rows: all vertices, rounded up to 8, or 2^10; two numbers each
    rows = sum(min(-(-(n**3) // 8) * 8, 1024) for n in (16, 32, 64))
    assert zipped.inference_parameters() == count_dense(without[1]) + 2 * rows
    for variant in ("eugen", "lowrank"):
        field = make_field(ZIP, variant)
        assert field.inference_parameters() == field.network.collapsed().count_numbers() + 2 * rows
    assert make_field(MIP).inference_parameters() == make_field(MIP).network.collapsed().count_numbers()


def test_a_checkpoint_holds_each_table_once() -> None:
    keys = [*make_field(ZIP).state_dict()]
    assert [key for key in keys if not key.startswith("network.layers.")] == ["encoder.grid.table"]
    field = make_field(ZIP)
    assert sum(p is field.grid.table for p in field.parameters()) == 1
    assert all(key.startswith("network.layers.") for key in make_field(MIP).state_dict())


# ---- training


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("which", ["field", "proposal"])
@pytest.mark.parametrize("name", BOTH)
def test_gradients_reach_every_parameter(name: str, which: str, variant: str) -> None:
    config = BOTH[name] if which == "field" else proposal(BOTH[name])
    for norm in (False, True):
        field = make_field(replace(config, norm=norm), variant).train()
        backward(field)
        for key, parameter in field.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().max() > 0, key
        assert ("encoder.grid.table" in dict(field.named_parameters())) == (name == "zip")


@pytest.mark.parametrize("name", BOTH)
def test_half_precision_is_for_training_alone(name: str) -> None:
    full = make_field(BOTH[name]).train()
    half = make_field(replace(BOTH[name], train_precision="bfloat16")).train()
    half.load_state_dict(full.state_dict())

    def outputs(field: UnboundedField) -> dict[FieldHeadNames, Tensor]:
        torch.manual_seed(1)  # the same hexagons
        return field(random_samples())

    expected, found = outputs(full), outputs(half)
    for key in (DENSITY, RGB):
        assert found[key].dtype == torch.float32
        assert not torch.equal(found[key], expected[key]), "bfloat16 was not used"
        torch.testing.assert_close(found[key], expected[key], rtol=0.1, atol=0.1)
    backward(half)
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in half.parameters())
    with torch.no_grad():
        expected, found = outputs(full.eval()), outputs(half.eval())
    assert all(torch.equal(found[key], expected[key]) for key in (DENSITY, RGB))


@pytest.mark.parametrize("name", BOTH)
def test_seeds(name: str) -> None:
    """Projections and grids follow the field's own seed; dense layers follow torch's."""

    def state(seed: int, torch_seed: int) -> dict[str, Tensor]:
        torch.manual_seed(torch_seed)
        return replace(BOTH[name], seed=seed).setup(variant="eugen").state_dict()

    first, again, other = state(0, 0), state(0, 1), state(1, 0)
    own = [key for key in first if key.endswith((".projection", ".table"))]
    assert len(own) == (4 if name == "mip" else 3)
    for key in own:
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])
    assert not torch.equal(first["network.layers.density.weight"], again["network.layers.density.weight"])


# ---- which layers


@pytest.mark.parametrize("name", BOTH)
def test_layers_are_replaced_as_the_settings_say(name: str) -> None:
    def replaced(config: Config, variant: str = "eugen") -> dict[str, int]:
        network = make_field(config, variant).network
        layers = {n: network.layer(n) for n in network.names}
        return {n: layer.config.num_features for n, layer in layers.items() if isinstance(layer, EUGenLinear)}

    config = BOTH[name]
    defaults = [f"trunk_{i}" for i in range(4)] if name == "mip" else ["head_0", "head_1"]
    assert replaced(config) == dict.fromkeys(defaults, 10)
    assert replaced(replace(config, layers=("head_0", "trunk_0"), num_features=(7, 9))) == {"trunk_0": 7, "head_0": 9}
    assert replaced(config, "dense") == {}
    names = ", ".join(n for n in make_field(config).network.names if n not in ("density", "bottleneck", "rgb"))
    with pytest.raises(ConfigError, match=rf"^layer pattern 'bottleneck' matches no layer; there are: {names}$"):
        make_field(replace(config, layers=("bottleneck",)))
    with pytest.raises(ConfigError, match=r"^3 numbers of features for"):
        make_field(replace(config, num_features=(1, 2, 3)))


@pytest.mark.parametrize("name", BOTH)
def test_specs_go_before_the_other_settings(name: str) -> None:
    first, second = EUGenConfig(degree=2, norm=True, phi="gelu"), EUGenConfig(norm=False, train_projection=False)
    specs = {
        "trunk_0": LayerSpec("eugen", num_features=4, eugen=first, seed=5),
        "head_0": LayerSpec("eugen", num_features=9, eugen=second, seed=6),
    }
    config = replace(BOTH[name], specs=specs)
    field = make_field(config).train()
    for key, layer in field.network.layers.items():
        assert isinstance(layer, EUGenLinear) == (key in specs)
    trunk, head = (field.network.layer(n).config for n in ("trunk_0", "head_0"))
    assert (trunk.num_features, trunk.degree, trunk.norm, trunk.phi, trunk.seed) == (4, 2, True, "gelu", 5)
    assert (head.num_features, head.degree, head.norm, head.train_projection, head.seed) == (9, 1, False, False, 6)
    backward(field)
    assert not [key for key, p in field.named_parameters() if p.grad is None]
    again = make_field(config, seed=1)
    again.load_state_dict(field.state_dict())
    samples = random_samples()
    with torch.no_grad():
        found, expected = again.eval()(samples), field.eval()(samples)
    assert all(torch.equal(found[key], expected[key]) for key in (DENSITY, RGB))
    dense = make_field(config, "dense").network
    assert all(isinstance(dense.layer(n), DenseLinear) for n in dense.names)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("wrong", ["trunk_9", "density", "trunk_."])
def test_specs_of_layers_that_are_not_there_are_refused(name: str, wrong: str) -> None:
    config = replace(BOTH[name], specs={"head_0": LayerSpec("eugen", num_features=4), wrong: LayerSpec("eugen")})
    with pytest.raises(ConfigError, match=r"matches no layer; there are: trunk_0, .*head_0"):
        make_field(config)


@pytest.mark.parametrize("highest", [8, 48, 100])
def test_resolutions_that_do_not_double_are_refused(highest: int) -> None:
    with pytest.raises(ConfigError, match=rf"{highest} is not 16 times 2, 4, 8"):
        make_field(replace(ZIP, max_resolution=highest))
