"""Inference plans of the preview, so that it is as fast, for its size, as the run beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nerfstudio.models.base_model import Model
from torch import Tensor

from eugen_nerf.core.choices import Backend, PlanDtype
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.rendering.planning import network_inputs, plan_networks, plans_of
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.runs.training_rays import draw_pixels, ray_bundle, training_views

RAYS = 16
"""Along which inputs of the networks are taken."""
INPUTS = 256
"""Inputs on which a new plan is checked: few, since plans are renewed while a slider moves."""


@dataclass(frozen=True)
class PreviewPlans:
    """Plans of a run's kind for changing copies of its model. A network that changes drops its plan by itself."""

    inputs: dict[str, tuple[Tensor, ...]]
    backend: Backend
    dtype: PlanDtype

    def renew(self, model: GraphModel, names: Iterable[str]) -> None:
        """Gives the networks of some fields plans of their present weights."""
        inputs = {name: self.inputs[name] for name in names}
        plan_networks(model, inputs, backend=self.backend, dtype=self.dtype)


def preview_plans(run: Run, shown: Model, model: GraphModel) -> PreviewPlans | None:
    """For copies of a model.

    Args:
        run: whose rays are taken.
        shown: the model whose plans are followed.
        model: a copy of it, which has none.

    Returns:
        None where `shown` has no plans.
    """
    plans = list(plans_of(shown).values()) if isinstance(shown, GraphModel) else []
    if not plans or model.collider is None:
        return None
    cameras = training_views(run.pipeline.datamanager).cameras
    bundle = ray_bundle(cameras.to(model.device), draw_pixels(cameras, RAYS, 0).to(model.device))
    return PreviewPlans(network_inputs(model, model.collider(bundle), limit=INPUTS), plans[-1].backend, plans[-1].dtype)
