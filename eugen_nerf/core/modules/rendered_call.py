"""Radiance fields by what they render: a `call` for `convert_`, so that units are chosen by their effect on colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError

Evaluate = Callable[[nn.Module, Tensor, Tensor], Any]
"""Density `[n]` or `[n, 1]`, at least 0, and colour `[n, c]` at positions and directions `[n, 3]` each: as a pair, or
under their names (`DENSITY_NAMES`, `COLOUR_NAMES`) in a mapping."""
DENSITY_NAMES = ("density", "densities", "sigma", "sigmas")
COLOUR_NAMES = ("rgb", "rgbs", "colour", "colours", "color", "colors")


def rendered_call(
    near: float,
    far: float,
    samples: int = 64,
    *,
    evaluate: Evaluate = lambda model, positions, directions: model(positions, directions),
    background: float = 1.0,
) -> Callable[[nn.Module, Any], Tensor]:
    """A `call` for `convert_(..., output_aware=True)` that renders a radiance field along rays.

    `convert_` weighs the squared change of what its `call` returns. Of raw outputs, a large density deep inside an
    object counts like one at its surface, and more than all colours: units are kept for what nobody sees. Of rendered
    colours, every sample counts by what it does to the image.

    Batches are pairs of origins `[n, 3]` and directions `[n, 3]`; a field is evaluated at `n * samples` positions, the
    middles of equal steps from `near` to `far` in multiples of the direction, always the same.

    Args:
        near: distance of the first step's beginning, at least 0.
        far: distance of the last step's end.
        samples: steps of a ray.
        evaluate: calls the model, with activations as they are used in rendering, where it does not return density
            and colour of `(positions, directions)` itself. A field with other arguments and one raw output `[n, 4]`:
            `lambda field, x, d: ((raw := field(pts=x, viewdirs=d))[:, 3].relu(), raw[:, :3].sigmoid())`.
        background: the colour behind the field, in each channel.

    Returns:
        `call(model, batch)`, which returns colours `[n, c]`.

    Raises:
        ConfigError: here, distances that make no sense; in the call, batches that are no rays, or a model that returns
            no density and colour of each sample, or densities below 0.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import rendered_call
        >>> class Fog(torch.nn.Module):
        ...     def forward(self, positions, directions):
        ...         return torch.ones(len(positions)), torch.zeros(len(positions), 3)
        >>> call = rendered_call(near=0.0, far=1.0, samples=8, background=1.0)
        >>> rays = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]])
        >>> call(Fog(), rays)  # black fog of density 1 lets exp(-1) of the background through
        tensor([[0.3679, 0.3679, 0.3679]])
    """
    if not 0 <= near < far or samples < 1:
        raise ConfigError(f"rays need 0 <= near < far and at least 1 sample, got {near:g}, {far:g} and {samples}")

    def call(model: nn.Module, batch: Any) -> Tensor:
        if not isinstance(batch, tuple | list) or len(batch) != 2 or any(t.shape[-1] != 3 for t in batch):
            raise ConfigError("batches of rendered_call are rays: pairs of origins [n, 3] and directions [n, 3]")
        origins, directions = batch
        step = (far - near) / samples
        t = near + step * (torch.arange(samples, device=origins.device, dtype=origins.dtype) + 0.5)
        positions = origins[:, None] + t[:, None] * directions[:, None]
        repeated = directions[:, None].expand_as(positions)
        density, colour = _density_and_colour(evaluate(model, positions.reshape(-1, 3), repeated.reshape(-1, 3)))
        count = len(positions) * samples
        if density.numel() != count or colour.dim() != 2 or len(colour) != count:
            raise ConfigError(
                f"the field returns density {tuple(density.shape)} and colour {tuple(colour.shape)} for {count} "
                f"samples: give evaluate, which returns ({count},) and ({count}, channels)"
            )
        if bool((density < 0).any()):
            raise ConfigError(
                f"the field returns densities down to {float(density.detach().min()):.3g}, values before their "
                "activation: give evaluate, which applies it (relu, softplus, exp) as rendering does"
            )
        lengths = step * directions.norm(dim=-1, keepdim=True)
        weights = compositing_weights(density.reshape(-1, samples) * lengths)
        rendered = (weights[..., None] * colour.reshape(-1, samples, colour.shape[1])).sum(dim=1)
        return rendered + background * (1 - weights.sum(dim=1, keepdim=True))

    return call


def _density_and_colour(output: Any) -> tuple[Tensor, Tensor]:
    """The two tensors of what a field returns.

    Raises:
        ConfigError: they cannot be distinguished.
    """
    if isinstance(output, Mapping):
        found = [next((output[n] for n in names if n in output), None) for names in (DENSITY_NAMES, COLOUR_NAMES)]
        what = f"a mapping of {', '.join(map(str, output))}"
    else:
        found = list(output) if isinstance(output, tuple | list) and len(output) == 2 else [None]
        what = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    density, colour = (*found, None)[:2]
    if not (isinstance(density, Tensor) and isinstance(colour, Tensor)):
        raise ConfigError(
            f"the field returns {what}, in which density and colour cannot be distinguished: give evaluate, which "
            "returns the pair of them, with their activations"
        )
    return density, colour


def compositing_weights(optical: Tensor) -> Tensor:
    """Share of each sample in a ray's colour, `T_i (1 - exp(-o_i))` (Eq. 5 of arXiv 2003.08934).

    Args:
        optical: density times length of each step o, `[n, s]`, front to back.
    """
    through = torch.exp(-torch.cat([torch.zeros_like(optical[:, :1]), optical.cumsum(dim=1)], dim=1))
    return through[:, :-1] - through[:, 1:]
