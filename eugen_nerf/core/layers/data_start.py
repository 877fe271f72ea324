"""First weights of EUGen layers from a batch of their inputs: centred features, none of them dead.

Inputs that are all positive, such as another layer's features, shift every pre-activation the same way. A layer that
starts without regard to their mean has features that are zero for all inputs, and features that are linear in them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenLinear
from eugen_nerf.core.layers.projections import sample_projection, seeded_generator

OFFSET = 3.0
"""Mean of the first pre-activations of a function with a kink, in standard deviations: in its linear part."""
GAIN = 0.1
"""Scale of the first output map: small, so that the first steps follow the data and not the draw."""


@torch.no_grad()
def start_from_data(layer: EUGenLinear, inputs: Tensor, outputs: Tensor | None = None) -> None:
    """Sets the first weights of a layer from a batch.

    Rows of G become orthogonal, with pre-activations of unit variance on the batch. They are centred at `OFFSET` where
    Phi has a kink, at 0 otherwise, and at 1 in the further factors of Eq. (1), whose products are then nearly linear.
    The output map is small. It takes features from which their mean on the batch is subtracted (`feature_mean`), so the
    layer's mean output is that of `outputs` and stays so while the map is learned.

    Args:
        layer: with free weights and a bias; changed in place.
        inputs: `[n, in_features]`, n at least 2.
        outputs: `[n, out_features]`, what the layer should give; zero mean where None.

    Raises:
        ConfigError: tied or separate weights, no bias, degree 0, or inputs of another shape or fewer than 2.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import EUGenConfig, EUGenLinear, start_from_data
        >>> layer, inputs = EUGenLinear(8, 2, EUGenConfig(num_features=8)), torch.rand(64, 8)
        >>> start_from_data(layer, inputs, outputs=torch.full((64, 2), 0.5))
        >>> torch.allclose(layer(inputs).mean(dim=0), torch.tensor([0.5, 0.5]), atol=1e-4)
        True
    """
    c = layer.config
    if c.weights != "free" or not c.bias or c.degree < 1:
        raise ConfigError(
            f"a start from data needs weights='free', bias=True and degree >= 1, the layer has weights={c.weights!r}, "
            f"bias={c.bias} and degree {c.degree}"
        )
    if inputs.ndim != 2 or inputs.shape[1] != layer.in_features or len(inputs) < 2:
        raise ConfigError(
            f"a start from data needs at least 2 inputs of width {layer.in_features}, got shape {tuple(inputs.shape)}"
        )
    generator = seeded_generator(c.seed, "start from data")
    x = inputs.to(layer.projection).double()
    m, mean = c.num_features, x.mean(dim=0)
    assert layer.projection_bias is not None
    assert layer.bias is not None
    for number, start in enumerate(range(0, len(layer.projection), m)):
        rows = sample_projection("orthogonal", m, layer.in_features, generator=generator, dtype=torch.float64).to(x)
        rows = rows / (x @ rows.T).std(dim=0).clamp_min(1e-12)[:, None]
        first = number == 0 or (not c.shared and _is_first_factor(number))
        offset = (OFFSET if c.phi in ("relu", "gelu", "softplus") else 0.0) if first else 1.0
        layer.projection[start : start + m] = rows.to(layer.projection)
        layer.projection_bias[start : start + m] = (offset - rows @ mean).to(layer.projection)
    if layer.projection_norm is not None:
        layer.projection_norm.zero_()
    drawn = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
    layer.set_output(drawn * (GAIN / layer.weight.shape[1] ** 0.5), torch.zeros_like(layer.bias))
    layer.feature_mean = layer.features(inputs.to(layer.projection)).mean(dim=0)
    if outputs is not None:
        layer.bias.copy_(outputs.to(layer.bias).mean(dim=0))


def _is_first_factor(block: int) -> bool:
    """Whether a block of unshared projections is the first factor of its degree: blocks 0, 1, 3, 6, ..."""
    return any(block == i * (i - 1) // 2 for i in range(1, block + 2))
