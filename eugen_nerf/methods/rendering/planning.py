"""Inference plans for all networks of a model, made from the networks' inputs along rays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from eugen_nerf.core import InferencePlan, make_plan
from eugen_nerf.core.choices import Backend, PlanDtype
from eugen_nerf.methods.graph_model import GraphModel

MAX_SAMPLES = 4096
"""Inputs on which a plan's deviation is measured, at most."""
ROWS_AT_ONCE = 1 << 20
"""Samples that are encoded at a time where the plan takes all rows in one launch."""
FEWEST_ROWS = 1 << 14
"""And at least, where it takes fewer: what goes round a network costs something a call, which was a fifth to a quarter
of an image by Mip-NeRF 360 and Zip-NeRF."""


def plan_model(
    model: GraphModel,
    ray_bundle: RayBundle,
    *,
    backend: Backend = "eager",
    dtype: PlanDtype = "float32",
    chunk: int | None = None,
    drop_norm: float = 0.0,
    seed: int = 0,
) -> dict[str, InferencePlan]:
    """Gives every network of a model a plan, which runs in inference mode; differentiable evaluations are unchanged.

    Fields then encode as many samples at a time as `rows_at_once` says. The gradient of a signed distance is still that
    of the collapsed network. Plans do not follow later changes of weights. A network drops its plan where a layer is
    replaced or weights are loaded, and its copies have none; call `unplan_model` after other changes.

    Args:
        model: in evaluation mode, on the device that it is to run on.
        ray_bundle: rays `[rays]` with near and far planes set, such as the model will render.
        backend: see `make_plan`.
        dtype: likewise.
        chunk: likewise.
        drop_norm: likewise.
        seed: of the choice of at most `MAX_SAMPLES` inputs among those along the rays.

    Returns:
        The plans by the fields' names, as `graph_fields` has them; their deviations are those of raw outputs.

    Raises:
        ConfigError: as `make_plan`.
    """
    unplan_model(model)
    inputs_of = network_inputs(model, ray_bundle, seed=seed)
    return plan_networks(model, inputs_of, backend=backend, dtype=dtype, chunk=chunk, drop_norm=drop_norm)


@torch.no_grad()
def network_inputs(
    model: GraphModel, ray_bundle: RayBundle, *, limit: int = MAX_SAMPLES, seed: int = 0
) -> dict[str, tuple[Tensor, ...]]:
    """Inputs `[n, d_i]` of every network of a model along rays, by the fields' names.

    Args:
        model: as in `plan_model`.
        ray_bundle: likewise.
        limit: largest n.
        seed: of the choice among all inputs along the rays.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen_of = {}
    for name in model.graph_fields():
        inputs, _ = model.field_samples(ray_bundle, name)
        chosen = torch.randperm(len(inputs[0]), generator=generator)[:limit].to(inputs[0].device)
        chosen_of[name] = tuple(x[chosen] for x in inputs)
    return chosen_of


@torch.no_grad()
def plan_networks(
    model: GraphModel,
    inputs_of: Mapping[str, Sequence[Tensor]],
    *,
    backend: Backend = "eager",
    dtype: PlanDtype = "float32",
    chunk: int | None = None,
    drop_norm: float = 0.0,
) -> dict[str, InferencePlan]:
    """As `plan_model`, from inputs of the networks; fields that are not among them keep what they have.

    Args:
        model: as in `plan_model`.
        inputs_of: encoded ones, as `network_inputs`.
        backend: see `make_plan`.
        dtype: likewise.
        chunk: likewise.
        drop_norm: likewise.
    """
    plans = {}
    for name, samples in inputs_of.items():
        field = model.graph_fields()[name]
        # points instead of their encodings save the kernel's device most of what it would write and read
        encodings = field.input_encodings() if backend in ("triton", "wgpu") else None
        if encodings is not None:
            samples = [x[:, -e.width :] for x, e in zip(samples, encodings, strict=True)]
        plan = make_plan(
            field.network,
            samples,
            backend=backend,
            dtype=dtype,
            chunk=chunk,
            drop_norm=drop_norm,
            encodings=encodings,
        )
        plans[name] = plan
    give_plans(model, plans)
    return plans


def give_plans(model: GraphModel, plans: Mapping[str, InferencePlan]) -> None:
    """Gives a model plans that were made of it, by the fields' names; others keep what they have."""
    for name, plan in plans.items():
        field = model.graph_fields()[name]
        field.network.plan, field.inference_rows = plan, rows_at_once(plan)


def rows_at_once(plan: InferencePlan) -> int:
    """How many samples a field encodes before its network is evaluated by a plan."""
    return ROWS_AT_ONCE if plan.chunk is None else max(plan.chunk, FEWEST_ROWS)


def plans_of(model: GraphModel) -> dict[str, InferencePlan]:
    """The plans that a model has, by the fields' names."""
    plans = {name: field.network.plan for name, field in model.graph_fields().items()}
    return {name: plan for name, plan in plans.items() if isinstance(plan, InferencePlan)}


def unplan_model(model: GraphModel) -> None:
    """Takes the plans away: the collapsed networks run again, all samples at once."""
    for field in model.graph_fields().values():
        field.network.plan = field.inference_rows = None
