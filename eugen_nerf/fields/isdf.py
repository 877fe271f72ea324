"""The field of iSDF: off-axis encoding in metres, a small network, one signed distance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.utils.math import generate_polyhedron_basis
from torch import Tensor, nn

from eugen_nerf.core import EvaluationMode, NeRFShape
from eugen_nerf.core.errors import RunError
from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.core.training.mixed_precision import full_precision
from eugen_nerf.fields.encoders import NUM_DIRECTIONS
from eugen_nerf.fields.graph_field import GraphField, GraphFieldConfig


@dataclass
class ISDFFieldConfig(GraphFieldConfig):
    """Network of a signed distance field; the defaults are iSDF's sizes with the EUGen paper's two layers."""

    _target: type = field(default_factory=lambda: ISDFField)
    """Class to instantiate."""
    layers: tuple[str, ...] = ("trunk_[12]",)
    """Hidden layers to replace: regular expressions on trunk_0, trunk_1, ..., or the one word none; unused by dense."""
    trunk_layers: int = 4
    """Number of hidden layers."""
    trunk_width: int = 256
    """Their width."""
    skips: tuple[int, ...] = (2,)
    """Layers that read the encoded position again."""
    function: Literal["relu", "softplus100"] = "relu"
    """Activation of the dense layers: relu as the EUGen paper, softplus100 as iSDF (`phi` is that of EUGen layers)."""
    position_frequencies: int = 6
    """Octaves of the encoding along each of 21 directions, besides the position itself."""
    input_scale: float = 0.05937489
    """Lowest frequency of the encoding, radians a metre (the authors' setting: periods of 106 m down to 3.3 m)."""
    output_scale: float = 0.14
    """Metres of distance for one unit of the network's output (the authors' setting)."""

    def shape(self) -> NeRFShape:
        """The widths, with that of the encoding filled in."""
        return NeRFShape(
            position_width=3 + 2 * NUM_DIRECTIONS * self.position_frequencies,
            trunk_layers=self.trunk_layers,
            trunk_width=self.trunk_width,
            skips=tuple(self.skips),
            head_width=0,
            output="distance",
            function=self.function,
        )

    def build(self, variant: Variant, scene_box: SceneBox) -> ISDFField:
        """The field, its encoding centred on the scene box."""
        built = self.setup(variant=variant)
        built.encoding.centre.copy_(scene_box.aabb.mean(dim=0))
        return built


class OffAxisInputs(nn.Module):
    """Scaled positions, and their sines and cosines along 21 directions at octaves (iSDF, Sec. IV; 2111.12077).

    Args:
        num_frequencies: L; the frequencies are `scale 2^0, ..., scale 2^(L - 1)` radians a metre.
        scale: of the positions.
    """

    centre: Tensor
    phases: Tensor

    def __init__(self, num_frequencies: int, scale: float) -> None:
        super().__init__()
        directions = torch.as_tensor(generate_polyhedron_basis("icosahedron", 2)).to(torch.get_default_dtype())
        octaves = 2.0 ** torch.arange(num_frequencies)
        phases = (octaves[:, None, None] * directions).flatten(0, 1).T.contiguous()  # [3, 21 L]
        self.register_buffer("phases", phases, persistent=False)
        self.register_buffer("centre", torch.zeros(3))
        self.scale = scale

    @full_precision()
    def forward(self, points: Tensor) -> Tensor:
        """Features `[..., 3 + 42 L]` of points `[..., 3]` in metres: position, sines, cosines."""
        x = (points - self.centre) * self.scale
        phase = x @ self.phases
        return torch.cat([x, phase.sin(), phase.cos()], dim=-1)

    @full_precision()
    def pull_back(self, features: Tensor, gradient: Tensor) -> Tensor:
        """A gradient in the features as one in the points, `[..., 3]`, from features that are there already.

        The derivative of each sine is its cosine: so the encoding need not take part in the first and second backward
        pass of training.
        """
        width = self.phases.shape[1]
        _, sine, cosine = features.split((3, width, width), dim=-1)
        direct, by_sine, by_cosine = gradient.split((3, width, width), dim=-1)
        return self.scale * (direct + (by_sine * cosine - by_cosine * sine) @ self.phases.T)


class ISDFField(GraphField):
    """Signed distance in metres, negative inside (iSDF, arXiv 2204.02296), the network a graph of layers.

    Args:
        config: sizes and replaced layers.
        variant: one of `core.networks.nerf_mlp.VARIANTS`.
    """

    def __init__(self, config: ISDFFieldConfig, variant: Variant) -> None:
        super().__init__(config, variant)
        self.encoding = OffAxisInputs(config.position_frequencies, config.input_scale)
        self.output_scale = config.output_scale

    @full_precision()
    def distance(self, points: Tensor, mode: EvaluationMode | None = None) -> Tensor:
        """Signed distances.

        Args:
            points: `[..., 3]`, metres.
            mode: differentiable, in points and weights, or inference; PyTorch's current mode by default.

        Returns:
            float32 `[...]`, metres.
        """
        return self._run(self.encoding(points), EvaluationMode.current() if mode is None else mode)

    @full_precision()
    def distance_and_gradient(self, points: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Signed distances and their gradients in space.

        Args:
            points: `[..., 3]`, metres.
            create_graph: whether distances and gradients are differentiable in the network's weights (never in the
                points: they are taken as constants).

        Returns:
            `[...]` metres and `[..., 3]`, float32.
        """
        mode = EvaluationMode.DIFFERENTIABLE  # in the points at least, which an inference plan is not
        with torch.inference_mode(False), torch.enable_grad():
            features = self.encoding(points.detach().clone()).requires_grad_()
            if create_graph:
                distance = self._run(features, mode)
                (gradient,) = torch.autograd.grad(distance.sum(), features, create_graph=True)
                self.set_backward_arithmetic((gradient,), mode)
            else:
                # without a graph the collapsed network serves, whose matrices carry no gradient
                with self.network_arithmetic(points.device, mode):
                    distance = self._scaled(self.network.collapsed()(features)[0])
                    (gradient,) = torch.autograd.grad(distance.sum(), features)
            gradient = self.encoding.pull_back(features.detach(), gradient)
            return (distance, gradient) if create_graph else (distance.detach(), gradient.detach())

    def forward_geonetwork(self, inputs: Tensor) -> Tensor:
        """Signed distances `[N, 1]` at points `[N, 3]`: what nerfstudio's marching cubes call."""
        return self.distance(inputs)[..., None]

    def encode(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None = None) -> tuple[Tensor]:
        """The network's input: encoded positions `[..., 255]` at the default sizes."""
        return (self.encoding(ray_samples.frustums.get_positions()),)

    def get_density(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor]:
        """Refuses: there is none."""
        raise RunError("a signed distance field has no density: call `distance`, or render the model")

    def get_outputs(
        self, ray_samples: RaySamples, density_embedding: Tensor | None = None
    ) -> dict[FieldHeadNames, Tensor]:
        """Distance `[..., 1]` and its gradient `[..., 3]` at the samples."""
        distance, gradient = self.distance_and_gradient(ray_samples.frustums.get_positions())
        return {FieldHeadNames.SDF: distance[..., None], FieldHeadNames.GRADIENT: gradient}

    def forward(self, ray_samples: RaySamples, compute_normals: bool = False) -> dict[FieldHeadNames, Tensor]:
        """As `get_outputs`."""
        return self.get_outputs(ray_samples)

    def _run(self, features: Tensor, mode: EvaluationMode) -> Tensor:
        return self._scaled(self.run_network(features, mode=mode)[0])

    def _scaled(self, output: Tensor) -> Tensor:
        return self.output_scale * output[..., 0].float()
