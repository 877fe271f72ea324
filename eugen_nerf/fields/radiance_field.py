"""Fields of density and colour, and the one way to evaluate them: `RadianceField.evaluate`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.errors import RunError
from eugen_nerf.core.marching.ray_spans import Spans
from eugen_nerf.fields.graph_field import GraphField

FieldOutputs = dict[FieldHeadNames, Tensor]
DENSITY = (0,)
"""Numbers of the network's outputs that the density is made of."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Some of samples `[rays, samples]`: those at which a field is evaluated."""

    indices: tuple[Tensor, ...]
    """As `mask.nonzero(as_tuple=True)` gives them: rays int64 `[n]`, and samples on these int64 `[n]`. The mask itself
    would make the host wait for their number at every use."""
    all_positions: Tensor
    """Positions of all samples, `[rays, samples, 3]`, which whoever selects has at hand."""

    def __len__(self) -> int:
        """How many."""
        return len(self.indices[0])

    @property
    def positions(self) -> Tensor:
        """Those of the selected samples, `[n, 3]`."""
        return self.all_positions[self.indices]


def selected_samples(ray_samples: RaySamples, indices: tuple[Tensor, ...]) -> RaySamples:
    """Some of samples `[rays, samples]` as samples `[n]`, with what fields read of them: frustums and times.

    Args:
        ray_samples: all of them.
        indices: as `Selection.indices`.
    """
    times = ray_samples.times
    return RaySamples(frustums=ray_samples.frustums[indices], times=None if times is None else times[indices])


def span_samples(ray_bundle: RayBundle, spans: Spans) -> RaySamples:
    """Samples `[n]` of rays `[rays]`, one for each of their spans `[n]`."""
    rays = ray_bundle[spans.ray]
    return rays.get_ray_samples(bin_starts=spans.start[:, None, None], bin_ends=spans.end[:, None, None])[:, 0]


class RadianceField(GraphField):
    """Density and, where the network has an output for it, view-dependent colour."""

    @abstractmethod
    def activate(self, raw: Sequence[Tensor]) -> FieldOutputs:
        """`DENSITY` and, where there is a second output, `RGB` from the network's outputs `[..., channels]`."""

    def evaluate(
        self,
        ray_samples: RaySamples,
        mode: EvaluationMode,
        *,
        density_only: bool = False,
        selection: Selection | None = None,
    ) -> FieldOutputs:
        """Evaluates the field at samples `[...]`, or at `n` of samples `[rays, samples]`.

        Args:
            ray_samples: all samples.
            mode: differentiable or inference, as the caller renders.
            density_only: compute no colours, nor anything that only they depend on. Densities are the same.
            selection: evaluate these samples alone.

        Returns:
            `DENSITY` `[..., 1]` and, with colours, `RGB` `[..., 3]`; `[n, channels]` of a selection.
        """
        if selection is not None:
            ray_samples = selected_samples(ray_samples, selection.indices)
        return self.activate(self.raw_outputs(ray_samples, mode, self.network_outputs(density_only)))

    def evaluate_spans(self, ray_bundle: RayBundle, spans: Spans) -> FieldOutputs:
        """Evaluates the field for inference in spans `[n]` of rays `[rays]`: `DENSITY` `[n, 1]`, and `RGB` `[n, 3]`."""
        return self.activate(self.raw_outputs(span_samples(ray_bundle, spans), EvaluationMode.INFERENCE, None))

    def network_outputs(self, density_only: bool) -> tuple[int, ...] | None:
        """Numbers of the network's outputs that an evaluation needs; None for all."""
        return DENSITY if density_only and len(self.network.outputs) > 1 else None

    # what nerfstudio calls

    def forward(self, ray_samples: RaySamples, compute_normals: bool = False) -> FieldOutputs:
        """`evaluate` in PyTorch's current mode.

        Raises:
            RunError: normals, which are not made from densities here.
        """
        if compute_normals:
            raise RunError(f"{type(self).__name__} computes no normals from its density: set compute_normals=False")
        return self.evaluate(ray_samples, EvaluationMode.current())

    def get_density(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        """Density `[..., 1]`, and the colour `[..., 3]` that came with it, where there is one."""
        outputs = self.evaluate(ray_samples, EvaluationMode.current())
        return outputs[FieldHeadNames.DENSITY], outputs.get(FieldHeadNames.RGB)

    def get_outputs(self, ray_samples: RaySamples, density_embedding: Tensor | None = None) -> FieldOutputs:
        """The colour `[..., 3]` that `get_density` returned."""
        assert density_embedding is not None
        return {FieldHeadNames.RGB: density_embedding}
