"""A layer that starts from a batch: where its features are, and what it learns that another start does not."""

import pytest
import torch
from oracles import draw

from eugen_nerf.core import ConfigError, EUGenConfig, EUGenLinear, start_from_data


def positive(count: int, width: int) -> torch.Tensor:
    """Inputs as another layer's features are: positive, of different scales."""
    return draw(count, width).abs() * torch.linspace(0.1, 3, width, dtype=torch.float64)


def layer(**settings: object) -> EUGenLinear:
    return EUGenLinear(24, 5, EUGenConfig(10, seed=3, norm=False, **settings)).double()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("degree", "phi", "shared", "product"),
    [
        (1, "relu", True, "plain"),
        (2, "identity", True, "plain"),
        (2, "identity", True, "harmonic"),
        (3, "identity", False, "plain"),
    ],
)
def test_pre_activations_are_centred_and_outputs_have_the_mean_of_what_is_learned(
    degree: int, phi: str, shared: bool, product: str
) -> None:
    started, x = layer(degree=degree, phi=phi, shared=shared, product=product), positive(400, 24)
    y = draw(400, 5, seed=2) + 7
    start_from_data(started, x, y)
    u = x @ started.projection.T + started.projection_bias
    torch.testing.assert_close(u.std(dim=0), torch.ones(len(started.projection), dtype=torch.float64))
    first = {0, 1, 3} if not shared else {0}
    expected = [(3.0 if phi == "relu" else 0.0) if block in first else 1.0 for block in range(len(u[0]) // 10)]
    torch.testing.assert_close(u.mean(dim=0).view(-1, 10), torch.tensor(expected).double()[:, None].expand(-1, 10))
    gram = started.projection[:10] @ started.projection[:10].T
    assert float((gram - gram.diag().diag()).abs().max()) < 1e-12
    with torch.no_grad():
        torch.testing.assert_close(started(x).mean(dim=0), y.mean(dim=0))
        start_from_data(started, x)
        torch.testing.assert_close(started(x).mean(dim=0), torch.zeros(5, dtype=torch.float64))


def test_outputs_keep_their_mean_while_the_map_is_learned() -> None:
    started, x, y = layer(), positive(400, 24), draw(400, 5, seed=2) + 7
    start_from_data(started, x, y)
    with torch.no_grad():
        started.weight.add_(draw(*started.weight.shape, seed=4))
        torch.testing.assert_close(started(x).mean(dim=0), y.mean(dim=0))


def test_the_mean_of_the_features_is_saved_and_forgotten_with_the_map() -> None:
    started, other, x = layer(), layer(), positive(50, 24)
    assert "feature_mean" not in other.state_dict()
    start_from_data(started, x)
    other.load_state_dict(started.state_dict())
    torch.testing.assert_close(other(x), started(x), rtol=0, atol=0)
    other.load_state_dict(layer().state_dict())
    torch.testing.assert_close(other(x), layer()(x), rtol=0, atol=0)
    started.set_output(torch.zeros_like(started.weight), torch.ones(5))
    torch.testing.assert_close(started(x), torch.ones(50, 5, dtype=torch.float64))


def test_it_learns_what_he_et_als_start_does_not() -> None:
    """Narrow layers on positive inputs: one start leaves most of the variance, the other what a linear map leaves."""
    torch.manual_seed(0)
    x = torch.rand(600, 64)
    y = torch.nn.Linear(64, 64)(x).relu().detach()
    left = {}
    for name in ("drawn", "data"):
        model = EUGenLinear(64, 64, EUGenConfig(16, norm=False))
        if name == "data":
            start_from_data(model, x, y)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(500):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
        left[name] = float(loss.detach() / y.var(dim=0).mean())
    centred, target = (x - x.mean(dim=0)).double(), (y - y.mean(dim=0)).double()
    fitted = centred @ torch.linalg.lstsq(centred, target).solution
    values = torch.linalg.svdvals(fitted)
    linear = float((target.square().sum() - values[:16].square().sum()) / target.square().sum())
    assert left["drawn"] > 0.9
    assert left["data"] < 1.15 * linear


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        ({"weights": "tied"}, (9, 24), "needs weights='free'"),
        ({"bias": False}, (9, 24), "bias=False"),
        ({"degree": 0}, (9, 24), "degree 0"),
        ({}, (9, 23), r"width 24, got shape \(9, 23\)"),
        ({}, (1, 24), "at least 2 inputs"),
    ],
)
def test_refusals(settings: dict[str, object], shape: tuple[int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        start_from_data(layer(**settings), draw(*shape))
