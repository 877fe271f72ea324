"""A renderer by proposals as a bundle holds it: fields of density, and how samples are drawn by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from eugen_nerf.core.bundle_schema import ADVICE, BundleError, Spec, StoredTensors
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.ray_spans import RayBatch
from eugen_nerf.core.rendering.compositing import Composite
from eugen_nerf.core.rendering.proposal_renderer import (
    MAX_COUNT,
    MAX_ROUNDS,
    FrustumDensity,
    FrustumField,
    ProposalRenderer,
    Spacing,
)

RAYS_OF_A_PART = 1024
"""Rays that are sampled at a time."""
BuildField = Callable[[Spec, StoredTensors, str], nn.Module]
"""Reads a field of density from its description and tensors, whose names have a prefix."""


class BundledProposals(nn.Module):
    """A `ProposalRenderer` with the fields that propose.

    Args:
        renderer: how samples are drawn.
        proposals: `RadianceBundle`s without colour, of the rounds in turn; the last one serves all that follow.
        thinned: whether proposals stand for a frustum by two points in place of six, where they do by points.
    """

    kind = "proposals"

    def __init__(self, renderer: ProposalRenderer, proposals: Sequence[nn.Module], thinned: bool) -> None:
        super().__init__()
        self.renderer, self.thinned = renderer, thinned
        self.proposals = nn.ModuleList(proposals)

    def forward(self, field: FrustumField, rays: RayBatch) -> Composite:
        """Renders rays `[r]` of a final field."""
        densities = [self._density(proposal) for proposal in self.proposals]
        parts = [
            self.renderer(densities, field, rays.part(first, first + RAYS_OF_A_PART))
            for first in range(0, max(1, len(rays)), RAYS_OF_A_PART)
        ]
        return Composite(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def _density(self, proposal: nn.Module) -> FrustumDensity:
        def density(frustums: Any) -> Tensor:
            values: Tensor = proposal.evaluate(frustums, thinned=self.thinned)[0]  # type: ignore[operator]
            return values

        return density

    def describe(self) -> dict[str, Any]:
        """See `BundledField.describe`."""
        settings = {**asdict(self.renderer), "counts": list(self.renderer.counts)}
        if self.renderer.spacing == "power":
            del settings["spacing"]  # bundles without it are read by earlier versions too
        fields = [proposal.describe() for proposal in self.proposals]  # type: ignore[operator]
        return {"kind": self.kind, **settings, "thinned": self.thinned, "proposals": fields}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str, build_field: BuildField) -> BundledProposals:
        """The renderer that `spec` describes; raises `BundleError` where it describes none."""
        counts = spec.integers("counts", 2, MAX_COUNT, MAX_ROUNDS)
        numbers = (
            spec.optional_number("exponent", -16.0, 16.0),
            spec.number("multiplier", 1e-6, 1e6),
            spec.number("padding", 0.0, 1e3),
        )
        spacing = cast(Spacing, spec.text("spacing", get_args(Spacing)) if spec.holds("spacing") else "power")
        try:
            renderer = ProposalRenderer(counts, *numbers, spacing)
        except ConfigError as error:
            raise BundleError(f"{spec.where}: {error}; {ADVICE}") from error
        thinned, fields = spec.flag("thinned"), spec.parts("proposals", MAX_ROUNDS - 1)
        spec.close()
        made = [build_field(field, tensors, f"{prefix}proposals.{i}.") for i, field in enumerate(fields)]
        return cls(renderer, made, thinned)
