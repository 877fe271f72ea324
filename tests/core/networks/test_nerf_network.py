"""The NeRF network: its size, its wiring written by hand, and the baselines of equal cost."""

from dataclasses import replace

import pytest
import torch
from oracles import draw
from torch import Tensor

from eugen_nerf.core import (
    ConfigError,
    EUGenConfig,
    EUGenLinear,
    LayerGraph,
    LayerSpec,
    NeRFShape,
    Replacement,
    build_nerf,
    build_variant,
)
from eugen_nerf.core.networks.nerf_mlp import VARIANTS, layer_specs, match_names
from eugen_nerf.core.spec import count_parameters

SMALL = NeRFShape(
    position_width=9, direction_width=5, trunk_layers=4, trunk_width=16, skips=(2,), head_layers=2, head_width=8
)


def _by_hand(state: dict[str, Tensor], position: Tensor, direction: Tensor, shape: NeRFShape) -> tuple[Tensor, Tensor]:
    """The network of nerf-pytorch, from the tensors alone."""
    hidden = position
    for i in range(shape.trunk_layers):
        if i in shape.skips:
            hidden = torch.cat([position, hidden], dim=-1)
        hidden = torch.relu(hidden @ state[f"layers.trunk_{i}.weight"].T + state[f"layers.trunk_{i}.bias"])
    density = hidden @ state["layers.density.weight"].T + state["layers.density.bias"]
    hidden = torch.cat([direction, hidden], dim=-1)
    for i in range(shape.head_layers):
        hidden = torch.relu(hidden @ state[f"layers.head_{i}.weight"].T + state[f"layers.head_{i}.bias"])
    return density, hidden @ state["layers.rgb.weight"].T + state["layers.rgb.bias"]


def test_the_stock_network_has_as_many_parameters_as_vanilla_nerf() -> None:
    assert count_parameters(build_nerf(NeRFShape())) == 546_564


@pytest.mark.parametrize("shape", [NeRFShape(), SMALL, replace(SMALL, skips=(1, 3)), replace(SMALL, head_layers=1)])
def test_dense_outputs_are_those_of_the_same_weights_by_hand(shape: NeRFShape) -> None:
    torch.manual_seed(0)
    graph = build_nerf(shape).double()
    position, direction = draw(6, shape.position_width), draw(6, shape.direction_width, seed=1)
    expected = _by_hand(graph.state_dict(), position, direction, shape)
    with torch.no_grad():
        collapsed = graph(position, direction)
    for results in (graph(position, direction), collapsed):
        assert [y.shape[-1] for y in results] == [1, 3]
        for y, truth in zip(results, expected, strict=True):
            torch.testing.assert_close(y, truth, rtol=1e-11, atol=1e-12)


def test_dense_multiply_adds_are_the_weights() -> None:
    graph = build_nerf(NeRFShape())
    matrices = sum(p.numel() for n, p in graph.named_parameters() if n.endswith("weight"))
    assert graph.multiply_adds() == matrices == 63 * 256 + 6 * 256**2 + 319 * 256 + 256 + 283 * 128 + 128**2 + 3 * 128


def test_replaced_layers_are_eugen_layers_with_seeds_of_their_own() -> None:
    replacement = Replacement(layers=("trunk_[13]", "head_0"), num_features=(4, 5, 6), eugen=EUGenConfig(seed=10))
    graph = build_variant(SMALL, "eugen", replacement)
    eugen = {name: graph.layer(name) for name in graph.names if isinstance(graph.layer(name), EUGenLinear)}
    assert list(eugen) == ["trunk_1", "trunk_3", "head_0"]
    assert [layer.config.num_features for layer in eugen.values()] == [4, 5, 6]
    assert len({layer.config.seed for layer in eugen.values()}) == 3


def test_eugen_multiply_adds_by_hand() -> None:
    """Trunk of one dense and two EUGen layers without norm; density and head read the last through its 3 features."""
    shape = replace(SMALL, trunk_layers=3, skips=(2,), head_layers=1)
    replacement = Replacement(layers=("trunk_[12]",), num_features=(3,), eugen=EUGenConfig(norm=False))
    graph = build_variant(shape, "eugen", replacement)
    trunk = 9 * 16 + 3 * 16 + 3 * (9 + 3)
    heads = 1 * 3 + 8 * (5 + 3) + 3 * 8
    assert graph.multiply_adds() == trunk + heads


@pytest.mark.parametrize("variant", ["lowrank", "monarch", "narrow", "shallow"])
@pytest.mark.parametrize("m", [64, 128])
@pytest.mark.parametrize("norm", [True, False])
def test_peers_cost_what_eugen_costs(variant: str, m: int, norm: bool) -> None:
    replacement = Replacement(num_features=(m,), eugen=EUGenConfig(norm=norm))
    target = build_variant(NeRFShape(), "eugen", replacement).multiply_adds()
    dense = build_variant(NeRFShape(), "dense", replacement).multiply_adds()
    baseline = build_variant(NeRFShape(), variant, replacement)
    assert target < dense
    assert abs(baseline.multiply_adds() / target - 1) < 0.05


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_runs_and_trains(variant: str) -> None:
    graph = build_variant(SMALL, variant, Replacement(layers=("trunk_.*", "head_.*"), num_features=(4,)))
    assert isinstance(graph, LayerGraph)
    position, direction = draw(3, 9).float(), draw(3, 5, seed=1).float()
    with torch.no_grad():
        before = [y.clone() for y in graph(position, direction)]
    after = graph(position, direction)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    sum(y.square().sum() for y in after).backward()
    used = [p.grad for p in graph.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in used)


def test_patterns_select_by_full_name() -> None:
    names = SMALL.replaceable()
    assert names == ("trunk_0", "trunk_1", "trunk_2", "trunk_3", "head_0", "head_1")
    assert match_names(["head_1", "trunk_[02]"], names) == ["trunk_0", "trunk_2", "head_1"]
    assert match_names(["trunk_1"], ["trunk_1", "trunk_10"]) == ["trunk_1"]
    with pytest.raises(ConfigError, match="'trunk' matches no layer; there are: trunk_0, trunk_1"):
        match_names(["trunk_0", "trunk"], names)
    with pytest.raises(ConfigError, match=r"'trunk_\(' is not a regular expression"):
        match_names(["trunk_("], names)


def test_the_output_layers_stay_linear() -> None:
    for name in ("density", "rgb"):
        with pytest.raises(ConfigError, match="matches no layer"):
            build_variant(SMALL, "eugen", Replacement(layers=(name,)))


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="3 numbers of features for 4 layers"):
        build_variant(SMALL, "eugen", Replacement(num_features=(4, 4, 4)))
    with pytest.raises(
        ConfigError, match="'wide' is unknown; choose one of eugen, dense, lowrank, snnk, monarch, narrow, shallow"
    ):
        build_variant(SMALL, "wide", Replacement())
    for m in (0, -1, 65):
        with pytest.raises(ConfigError, match=f"{m} features make no sense.*choose 1 to 64"):
            build_variant(SMALL, "eugen", Replacement(layers=("trunk_1",), num_features=(m,)))
    assert layer_specs(SMALL, "eugen", Replacement(num_features=(4,)))["trunk_2"] == LayerSpec(
        "eugen", num_features=4, eugen=EUGenConfig(), seed=2
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_named_output_of_any_width(variant: str) -> None:
    """What a deformation or a distance needs: no head, another name and width, another activation."""
    shape = replace(SMALL, head_width=0, output="offset", output_width=3, function="softplus100")
    replacement = Replacement(("trunk_[12]",), (6,), EUGenConfig(norm=False, phi="softplus100"))
    graph = build_variant(shape, variant, replacement)
    trunk = [name for name in graph.names if name != "offset"]
    assert trunk == [f"trunk_{i}" for i in range(len(trunk))]
    assert len(trunk) < 4 if variant == "shallow" else len(trunk) == 4
    assert graph.names[-1] == "offset"
    (output,) = graph(torch.randn(5, 9))
    assert output.shape == (5, 3)
    if variant != "narrow":
        assert graph.layer("trunk_0").function == "softplus100"
    if variant == "lowrank":
        assert graph.layer("trunk_1").function == "softplus100"


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("variant", ["dense", "eugen"])
def test_second_derivatives(variant: str, norm: bool) -> None:
    """A loss on the gradient of the output reaches the weights, merged (no norm) or layer by layer (norm)."""
    torch.manual_seed(0)
    shape = replace(SMALL, head_width=0, output="distance", function="softplus100")
    replacement = Replacement(("trunk_[12]",), (6,), EUGenConfig(norm=norm, phi="softplus"))
    graph = build_variant(shape, variant, replacement).double()
    points = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    parameters = [p for p in graph.parameters() if p.requires_grad]

    def squared_gradient(*values: Tensor) -> Tensor:
        state = dict(zip((n for n, p in graph.named_parameters() if p.requires_grad), values, strict=True))
        (distance,) = torch.func.functional_call(graph, state, (points,))
        (gradient,) = torch.autograd.grad(distance.sum(), points, create_graph=True)
        return gradient.square().sum()

    leaves = [p.detach().requires_grad_() for p in parameters]
    assert torch.autograd.gradcheck(squared_gradient, leaves, atol=1e-4, fast_mode=True)  # along random directions
