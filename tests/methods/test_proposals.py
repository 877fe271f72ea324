"""Rounds of proposal sampling: how the proposals are queried, where the next samples lie, and when weights anneal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.model_components.ray_samplers import LinearDisparitySampler, Sampler
from tiny_models import FAR, NEAR, make_model, make_rays
from torch import Tensor

from eugen_nerf.core import EvaluationMode
from eugen_nerf.methods.proposals import ProposalSampler, power_sampler
from eugen_nerf.methods.unbounded_model import UnboundedModel, edges

FIRST: dict[str, Callable[[], Sampler]] = {
    "disparity": lambda: LinearDisparitySampler(single_jitter=True),
    "power": lambda: power_sampler(-1.5, 2.0),
}


def make_sampler(first: str = "disparity", counts: tuple[int, ...] = (9, 7, 5), slope: float = 10.0) -> ProposalSampler:
    return ProposalSampler(FIRST[first](), counts, slope, 0.01).eval()


class Spy:
    """A density with a bump two units from the origin, that remembers its samples."""

    def __init__(self) -> None:
        self.queried: list[RaySamples] = []
        self.height = torch.tensor(0.9, requires_grad=True)

    def __call__(self, samples: RaySamples) -> Tensor:
        self.queried.append(samples)
        away = samples.frustums.get_gaussian_blob().mean.norm(dim=-1, keepdim=True)
        return self.height * torch.exp(-((away - 2) ** 2)) + 0.01


def world_edges(samples: RaySamples) -> Tensor:
    return torch.cat([samples.frustums.starts[..., 0], samples.frustums.ends[..., -1:, 0]], dim=-1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("first", FIRST)
def test_rounds_of_samples(first: str, training: bool) -> None:
    sampler, spies = make_sampler(first).train(training), [Spy(), Spy()]
    torch.manual_seed(0)
    rounds, samples = sampler(make_rays(), spies)
    assert [r.samples.shape for r in rounds] == [(5, 9), (5, 7)]
    assert samples.shape == (5, 5)
    for spy, done in zip(spies, rounds, strict=True):
        (queried,) = spy.queried
        assert queried is done.samples
        assert queried.frustums.directions.shape == (*queried.shape, 3)
        torch.testing.assert_close(queried.frustums.pixel_area, torch.full((*queried.shape, 1), 1e-4))
        expected = rendering_weights(world_edges(queried), spy(queried)[..., 0].detach())
        assert done.weights.shape == (*queried.shape, 1)
        np.testing.assert_allclose(done.weights[..., 0].detach(), expected, rtol=1e-4, atol=1e-6)
    for found in (*(r.samples for r in rounds), samples):
        distances, normalised = world_edges(found), edges(found)
        assert normalised.shape == distances.shape == (5, found.shape[1] + 1)
        torch.testing.assert_close(found.frustums.ends[:, :-1], found.frustums.starts[:, 1:])
        for values, low, high in ((distances, NEAR, FAR), (normalised, 0, 1)):
            assert (values.diff(dim=-1) > 0).all()
            assert values.min() >= low * (1 - 1e-5)
            assert values.max() <= high * (1 + 1e-4)
    again = sampler(make_rays(), spies)[1]
    assert torch.equal(world_edges(again), world_edges(samples)) == (not training)


def rendering_weights(distances: Tensor, densities: Tensor) -> np.ndarray:
    """`T_i (1 - exp(-sigma_i delta_i))`."""
    optical = np.diff(distances.double().numpy(), axis=1) * densities.double().numpy()
    return np.exp(-(np.cumsum(optical, axis=1) - optical)) * (1 - np.exp(-optical))


def test_later_rounds_go_where_the_weights_are() -> None:
    rounds, samples = make_sampler(counts=(32, 32, 32))(make_rays(), [Spy(), Spy()])
    shares = []
    for found in (rounds[0].samples, rounds[1].samples, samples):
        middle = world_edges(found)[:, :-1]
        shares.append(float(((middle > 1) & (middle < 3)).float().mean()))
    assert shares[0] < 0.2
    assert shares[1] > 0.5
    assert shares[2] > 0.5


def test_fewer_rounds_than_proposals() -> None:
    sampler, spies = make_sampler(), [Spy(), Spy()]
    everything = sampler(make_rays(), spies)[0]
    rounds, samples = sampler(make_rays(), spies, rounds=1)
    assert [len(spy.queried) for spy in spies] == [2, 1]
    assert len(rounds) == 1
    assert torch.equal(edges(samples), edges(everything[1].samples)), "the samples of the next round"
    assert torch.equal(rounds[0].weights, everything[0].weights)


def test_gradients_reach_the_densities_by_the_weights_alone() -> None:
    spies = [Spy(), Spy()]
    rounds, samples = make_sampler().train()(make_rays(), spies)
    assert not edges(samples).requires_grad
    assert not world_edges(samples).requires_grad
    rounds[1].weights.square().sum().backward()
    assert spies[0].height.grad is None, "a round knows the one before by its samples' places only"
    assert spies[1].height.grad.abs() > 1e-3


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("slope", "fraction"), [(10.0, 0.0), (10.0, 0.02), (10.0, 0.5), (10.0, 1.0), (0.0, 0.02)])
def test_weights_are_annealed_while_training(slope: float, fraction: float, training: bool) -> None:
    """The next edges are at equal steps of the cumulated weights, to the power of Schlick's bias, plus the padding."""
    sampler = make_sampler(counts=(12, 40), slope=slope).train(training)
    sampler.fraction = fraction
    rounds, samples = sampler(make_rays(), [Spy()])
    power = slope * fraction / ((slope - 1) * fraction + 1) if slope else 1.0
    weights = rounds[0].weights.detach().double().numpy()[..., 0] ** (power if training else 1.0) + 0.01
    assert weights.std() > 0.02 or power == 0
    before, after = (edges(v).double().numpy() for v in (rounds[0].samples, samples))
    for w, old, new in zip(weights, before, after, strict=True):
        cumulated = np.concatenate([[0], np.cumsum(w / w.sum())])
        steps = np.diff(np.interp(new, old, cumulated))
        np.testing.assert_allclose(steps, 1 / 41, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        rounds[0].weights[..., 0].detach().double(),
        torch.from_numpy(rendering_weights(world_edges(rounds[0].samples), Spy()(rounds[0].samples)[..., 0].detach())),
        rtol=1e-4,
        atol=1e-6,
    )


# ---- which proposal serves which round


def proposal_queries(model: UnboundedModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, torch.Size]]:
    """Which proposal is evaluated, at samples of which shape, when rays are rendered; frustums are required."""
    queries: list[tuple[int, torch.Size]] = []
    for number, proposal in enumerate(model.proposals):

        def spy(samples: RaySamples, mode: EvaluationMode, number=number, original=proposal.evaluate, **options: bool):
            assert isinstance(samples, RaySamples)
            assert samples.frustums.ends.shape == (*samples.shape, 1)
            queries.append((number, samples.shape))
            return original(samples, mode, **options)

        monkeypatch.setattr(proposal, "evaluate", spy)
    model.eval()(make_rays())
    return queries


def test_one_proposal_serves_all_rounds_of_mipnerf360(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("mip", num_proposal_samples=(8, 6, 4), num_samples=5)
    assert len(model.proposals) == 1
    assert proposal_queries(model, monkeypatch) == [(0, (5, 8)), (0, (5, 6)), (0, (5, 4))]
    assert [*model.graph_fields()] == ["proposal_0", "field"]


def test_each_round_of_zipnerf_has_a_proposal_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(
        "zip",
        num_proposal_samples=(8, 6, 4),
        proposal_resolutions=(16, 32, 64),
        interlevel_blurs=(0.03, 0.01, 0.003),
        num_samples=5,
    )
    assert proposal_queries(model, monkeypatch) == [(0, (5, 8)), (1, (5, 6)), (2, (5, 4))]
    assert [p.grid.resolutions[-1] for p in model.proposals] == [16, 32, 64]
    assert [*model.graph_fields()] == ["proposal_0", "proposal_1", "proposal_2", "field"]
    first = [p.grid.table[:100].detach() for p in model.proposals]
    assert not torch.equal(first[0], first[1]), "grids of seeds of their own"


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_number_of_rounds_is_free(rounds: int) -> None:
    own = {"proposal_resolutions": (32, 64)[:rounds], "interlevel_blurs": (0.03, 0.003)[:rounds]}
    for name, changes in (("mip", {}), ("zip", own)):
        model = make_model(name, num_proposal_samples=(8, 6)[:rounds], **changes)
        outputs = model.eval()(make_rays())
        assert {key for key in outputs if key.startswith("prop_depth")} == {f"prop_depth_{i}" for i in range(rounds)}


# ---- where the first samples lie


def spacing(exponent: float, multiplier: float) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    sampler = power_sampler(exponent, multiplier)
    return sampler.spacing_fn, sampler.spacing_fn_inv


@pytest.mark.parametrize(("exponent", "multiplier"), [(-1.5, 2.0), (-0.5, 1.0), (0.25, 3.0), (2.0, 1.0)])
def test_power_spacing_and_its_inverse(exponent: float, multiplier: float) -> None:
    """Eq. 6 of arXiv 2304.06706 of a multiple of the distance."""
    there, back = spacing(exponent, multiplier)
    t = torch.logspace(-3, 3, 200, dtype=torch.float64)
    s = there(t)
    x = multiplier * t.numpy() / abs(exponent - 1) + 1
    np.testing.assert_allclose(s, abs(exponent - 1) / exponent * (x**exponent - 1), rtol=1e-12)
    assert (s.diff() > 0).all()
    torch.testing.assert_close(back(s), t, rtol=1e-9, atol=0)
    single = there(t.float())
    assert (single.diff() >= 0).all()
    torch.testing.assert_close(back(single), t.float(), rtol=5e-3, atol=1e-6)


def test_first_samples_are_even_in_the_methods_own_distance() -> None:
    """Steps in 1/t for Mip-NeRF 360; for Zip-NeRF nearly even steps at first, then ever longer ones."""
    samples = make_sampler("disparity", (10, 4))(make_rays(), [Spy()])[0][0].samples
    steps = (1 / world_edges(samples).double()).diff(dim=-1)
    torch.testing.assert_close(steps, torch.full_like(steps, (1 / FAR - 1 / NEAR) / 10), rtol=1e-4, atol=1e-6)
    samples = make_sampler("power", (10, 4))(make_rays(), [Spy()])[0][0].samples
    there, _ = spacing(-1.5, 2.0)
    steps = there(world_edges(samples).double()).diff(dim=-1)
    ends = there(torch.tensor([NEAR, FAR], dtype=torch.float64))
    torch.testing.assert_close(steps, torch.full_like(steps, float(ends.diff()) / 10), rtol=1e-4, atol=1e-6)
    ratio = world_edges(samples).diff(dim=-1)
    assert (ratio[:, 1:] > ratio[:, :-1]).all()
    assert ratio[0, 1] / ratio[0, 0] < 1.5
    assert ratio[0, -1] / ratio[0, -2] > 5
