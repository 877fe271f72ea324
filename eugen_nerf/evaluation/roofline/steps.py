"""A training step, or the rendering of a chunk of rays, of a method at its full size, and every operation of it."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.evaluation.roofline.batches import ray_source, without_contents
from eugen_nerf.evaluation.roofline.counter import Counted, OperationCounter, kept_tensors
from eugen_nerf.fields.graph_field import GraphFieldConfig
from eugen_nerf.methods.dnerf import EugenDNerfModelConfig
from eugen_nerf.methods.graph_model import GraphModel, GraphModelConfig

Mode = Literal["train", "eval"]


@dataclass(frozen=True)
class CountedStep:
    """What a step does."""

    rays: int
    parameters: int
    operations: list[Counted]
    kept_bytes: int
    """What the forward pass keeps for the backward pass; 0 without one."""


def count_step(
    method: str,
    variant: Variant = "eugen",
    mode: Mode = "train",
    *,
    bfloat16: bool = False,
    rays: int | None = None,
    contents: bool = False,
) -> CountedStep:
    """Counts a step as CUDA would run it: the second of a training, or a chunk of rays of a later image.

    Masks keep all samples (`roofline/unknown.py`). Optimizers work on all parameters at once, as torch does on CUDA.
    What follows a step now and then is left out: callbacks, checks, logs, new frames.

    Args:
        method: name of a method of this package.
        variant: of its networks.
        mode: train, or eval for rendering.
        bfloat16: whether the networks train in bfloat16.
        rays: of the batch, or of the chunk; by default as many as the method's settings say.
        contents: run on numbers, on the CPU, instead of on tensors without contents.

    Raises:
        ConfigError: no such method here, or no rays.
    """
    config = _settings(method, variant, bfloat16)
    if rays is None:
        chunk = config.pipeline.model.eval_num_rays_per_chunk
        rays = config.pipeline.datamanager.train_num_rays_per_batch if mode == "train" else chunk  # type: ignore[attr-defined]
    if rays < 1:
        raise ConfigError(f"a step has at least one ray, not {rays}")
    box = SceneBox(aabb=torch.tensor([[-1.5, -1.5, -1.5], [1.5, 1.5, 1.5]]))
    model: GraphModel = config.pipeline.model.setup(scene_box=box, num_train_data=1, metadata={})
    counter, fake = OperationCounter(), FakeTensorMode(allow_non_fake_inputs=True)
    moving = isinstance(config.pipeline.model, EugenDNerfModelConfig)
    make_rays = ray_source(config, moving=moving)
    with counter if mode == "train" else nullcontext():
        bundle = make_rays(rays)
    if mode == "eval":  # what only training is given
        bundle.metadata = {"directions_norm": bundle.metadata["directions_norm"]}
    if contents:
        kept = _run(config, model, bundle, mode, counter)
    else:
        model._apply(fake.from_tensor)
        bundle = without_contents(bundle, fake)
        with fake, _Addresses():
            kept = _run(config, model, bundle, mode, counter)
    return CountedStep(rays, sum(p.numel() for p in model.parameters()), counter.operations, kept)


def _settings(method: str, variant: Variant, bfloat16: bool) -> TrainerConfig:
    from nerfstudio.configs.method_configs import all_methods  # here: it imports every plugin, this package included

    # the registry also holds names of packages that are not installed, without a pipeline
    pipelines = {name: getattr(config, "pipeline", None) for name, config in all_methods.items()}
    ours = [
        name for name, pipeline in pipelines.items() if isinstance(getattr(pipeline, "model", None), GraphModelConfig)
    ]
    if method not in ours:
        raise ConfigError(f"method {method!r} is none of this package; choose one of {', '.join(sorted(ours))}")
    config: TrainerConfig = deepcopy(all_methods[method])  # type: ignore[assignment]
    config.pipeline.model.variant = variant  # type: ignore[attr-defined]
    for value in vars(config.pipeline.model).values():
        if isinstance(value, GraphFieldConfig):
            value.train_precision = "bfloat16" if bfloat16 else "float32"
    return config


def _run(config: TrainerConfig, model: GraphModel, bundle: RayBundle, mode: Mode, counter: OperationCounter) -> int:
    """Runs a step for what later ones find made, and counts the next; bytes kept for its backward pass.

    The first one has a counter too, because a counter stands in for numbers that are not there.
    """
    if mode == "eval":
        model.eval()
        with torch.no_grad():
            with OperationCounter():
                model(bundle)
            with counter:
                model(bundle)
        return 0
    model.train()
    optimizers = Optimizers(config.optimizers, model.get_param_groups())
    for optimizer in optimizers.optimizers.values():
        for group in optimizer.param_groups:
            group["foreach"] = not group.get("fused")
    batch = {"image": torch.zeros(len(bundle), 3)}
    with OperationCounter():
        _iterate(model, bundle, batch, optimizers)
    with counter:
        return _iterate(model, bundle, batch, optimizers)


def _iterate(model: GraphModel, bundle: RayBundle, batch: dict[str, Any], optimizers: Optimizers) -> int:
    optimizers.zero_grad_all()
    with kept_tensors(model) as kept:
        outputs = model(bundle)
        losses = model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))
        loss = functools.reduce(torch.add, losses.values())
    kept_bytes = sum(storage.nbytes() for storage in kept.values())
    loss.backward()
    clip = functools.partial(torch.nn.utils.clip_grad_norm_, foreach=True)
    with mock.patch.object(torch.nn.utils, "clip_grad_norm_", clip):
        optimizers.optimizer_step_all()
    return kept_bytes


class _Addresses(TorchFunctionMode):
    """Gives tensors without contents addresses, by which what was computed before is known again."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.data_ptr:
            return id(args[0])
        return func(*args, **(kwargs or {}))
