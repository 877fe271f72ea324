"""Stock nerfacto, its networks in PyTorch, as a model whose fields are graphs of layers; converted runs of it too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeGuard

from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.mlp import MLP
from nerfstudio.model_components.ray_samplers import Sampler, UniformLinDispPiecewiseSampler, UniformSampler
from nerfstudio.models.nerfacto import NerfactoModel
from torch import nn

from eugen_nerf.core.rendering.proposal_renderer import ProposalRenderer, Spacing
from eugen_nerf.methods.graph_model import FastRenderer
from eugen_nerf.methods.rendering.fewer_samples import FewerSamples, sample_counts
from eugen_nerf.methods.stock.nerfacto_fields import copied_colours, copied_proposal, stock_networks
from eugen_nerf.methods.unbounded_model import UnboundedModel, UnboundedModelConfig

SHARES = (
    (0.25, 0.375, 0.5),
    (0.375, 0.5, 0.5),
    (0.5, 0.75, 0.75),
    (0.5, 0.75, 1.0),
    (0.75, 0.75, 1.0),
    (1.0, 1.0, 1.0),
)
"""As those of `fewer_samples`: nerfacto has more samples of proposals than our methods."""


def is_stock_nerfacto(model: nn.Module) -> TypeGuard[NerfactoModel]:
    """Whether a model is stock nerfacto without layers of tinycudann, converted or not."""
    if type(model) is not NerfactoModel:
        return False
    return all(
        isinstance(m, MLP) and m.tcnn_encoding is None and not m._skip_connections for m in stock_networks(model)
    )


@dataclass
class NerfactoCopyConfig(UnboundedModelConfig):
    """Sampling of a stock nerfacto; there is no training of it."""

    _target: type = field(default_factory=lambda: NerfactoCopy)
    """Class to instantiate."""
    piecewise: bool = True
    """Whether the first samples are spaced linearly up to distance 1, and in disparity beyond; else all linearly."""


class NerfactoCopy(UnboundedModel):
    """A model that renders as stock nerfacto does in evaluation, its fields being graphs of layers.

    It takes `stock`, the model, beside the arguments of nerfstudio's models.
    """

    config: NerfactoCopyConfig

    def populate_modules(self) -> None:
        """As the base class; planes and poses are the stock model's own."""
        super().populate_modules()
        stock = self.kwargs.pop("stock")
        self.collider = stock.collider
        self.camera_optimizer = stock.camera_optimizer

    def build_fields(self) -> None:
        """Copies them."""
        stock = self.kwargs["stock"]
        self.field = copied_colours(stock.field)  # type: ignore[assignment]
        self.proposals = nn.ModuleList(map(copied_proposal, stock.proposal_networks))

    def first_sampler(self) -> Sampler:
        """As the stock model's."""
        kind = UniformLinDispPiecewiseSampler if self.config.piecewise else UniformSampler
        return kind(single_jitter=True)

    def bundled_renderer(self, counts: tuple[int, ...]) -> ProposalRenderer:
        """See `UnboundedModel`."""
        spacing: Spacing = "piecewise" if self.config.piecewise else "linear"
        return ProposalRenderer(counts, padding=self.config.histogram_padding, spacing=spacing)

    def fast_renderers(self, ray_bundle: RayBundle) -> list[FewerSamples]:
        """See `UnboundedModel`."""
        return sample_counts(self.sampler.counts, SHARES)

    def render_by(self, renderer: FastRenderer | None) -> None:
        """See `GraphModel`; frustums are their middles, of which there are no fewer."""
        self.fast_renderer = renderer


def nerfacto_copy(stock: NerfactoModel) -> NerfactoCopy:
    """A model that renders as the stock one does, in evaluation mode.

    Args:
        stock: one that `is_stock_nerfacto`.
    """
    settings = stock.config
    config = NerfactoCopyConfig(
        near_plane=settings.near_plane,
        far_plane=settings.far_plane,
        num_proposal_samples=tuple(settings.num_proposal_samples_per_ray[: settings.num_proposal_iterations]),
        num_samples=settings.num_nerf_samples_per_ray,
        background_color=settings.background_color,
        eval_num_rays_per_chunk=settings.eval_num_rays_per_chunk,
        piecewise=settings.proposal_initial_sampler == "piecewise",
        anneal_slope=0.0,
    )
    model = config.setup(scene_box=stock.scene_box, num_train_data=stock.num_train_data, stock=stock)
    assert isinstance(model, NerfactoCopy)
    return model.to(stock.device).eval()
