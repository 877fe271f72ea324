"""Conversion of stock nerfstudio runs that no method of ours stands for: mipnerf, nerfacto, fields of `nn.Linear`.

Their fields are asked along rays of the training views, once, and what they were asked is kept. So the samples are
where the teacher puts them, whatever is converted, and the model around the fields (proposal sampling, appearance
embeddings, camera optimisation) stays as it is.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.fields.base_field import Field
from nerfstudio.models.base_model import Model
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from torch import Tensor, nn

from eugen_nerf.conversion.rays import RAYS_PER_BATCH, choose_rays, ray_bundle
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.fit import ConversionConfig
from eugen_nerf.core.hidden import Linears
from eugen_nerf.core.modules import ModuleReport, NothingToConvert, convert_
from eugen_nerf.core.narrowing import Weighted
from eugen_nerf.core.nerf import match_names
from eugen_nerf.core.spec import count_parameters
from eugen_nerf.methods.converted import ConvertedPipelineConfig, resize
from eugen_nerf.methods.runs import Run, without_lpips


@dataclass(frozen=True)
class StockConfig:
    """What to replace in a stock run, how, and on which rays."""

    layers: tuple[str, ...] = ()
    """Regular expressions on full module names inside the model, such as field.mlp_base.*; where empty, every hidden
    layer of every field but proposals."""
    exclude: tuple[str, ...] = ()
    """The same, of layers to leave as they are."""
    num_features: int | float | tuple[int, ...] = 0.5
    """One number for all layers, a fraction of each layer's width, or one number for each layer of a field."""
    conversion: ConversionConfig = field(default_factory=ConversionConfig)
    ray_fraction: float = 1 / 64
    max_rays: int = 4096
    seed: int = 0


@dataclass(frozen=True)
class _Question:
    """What a field was asked."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def convert_stock(
    run: Run, config: StockConfig, progress: Callable[[str, str], None] = lambda which, layer: None
) -> tuple[TrainerConfig, Model, dict[str, ModuleReport]]:
    """Converts linear layers inside the fields of a stock run.

    Args:
        run: of a method that uses nerfstudio's own pipeline, or a run converted this way; loaded with its training
            views, unchanged.
        config: what to replace.
        progress: called with the field and the layer that is done.

    Returns:
        The student's trainer configuration, its model in evaluation mode, and a report for each field that was
        changed; parameters and multiply-adds in it are the field's.

    Raises:
        ConfigError: patterns that match nothing, or only layers that cannot be converted (with the reasons).
        RunError: a run whose pipeline is not nerfstudio's own, or that has no field of PyTorch layers.
    """
    pipeline = run.config.pipeline
    if type(pipeline) not in (VanillaPipelineConfig, ConvertedPipelineConfig):
        raise RunError(f"{run.path} has a pipeline of its own ({type(pipeline).__name__}) and cannot be converted")
    teacher = run.model
    places = {name: module for name, module in teacher.named_modules() if isinstance(module, Field)}
    names = [n for n in places if not any(n.startswith(f"{other}.") for other in places)]
    wanted = _wanted(Linears(teacher), names, config)
    earlier = dict(pipeline.linears) if isinstance(pipeline, ConvertedPipelineConfig) else {}
    student = _copy_of(run, earlier)
    asked = _ask_fields(teacher, names, run, config)
    reports: dict[str, ModuleReport] = {}
    refusals = []
    for name, layers in wanted.items():
        before = _costs(student.get_submodule(name))
        try:
            report = convert_(
                student,
                asked[name],
                config.conversion,
                layers=tuple(map(re.escape, layers)),
                num_features=config.num_features,
                call=lambda model, question, name=name: _ask(model.get_submodule(name), question),  # type: ignore[misc]
                progress=lambda layer, name=name: progress(name, layer),  # type: ignore[misc]
            )
        except NothingToConvert as error:
            refusals.append(error)
            continue
        after = _costs(student.get_submodule(name))
        pairs = ((before[0], after[0]), (before[1], after[1]))
        reports[name] = replace(report, parameters=pairs[0], multiply_adds=pairs[1])
        earlier |= {key: [size[0], size[1], int(size[2])] for key, size in report.linears.items()}
    if not reports:
        raise refusals[0]
    trainer = copy.deepcopy(run.config)
    own = trainer.pipeline
    trainer.pipeline = ConvertedPipelineConfig(datamanager=own.datamanager, model=own.model, linears=earlier)
    return trainer, student.eval(), reports


def _wanted(linears: Linears, fields: Sequence[str], config: StockConfig) -> dict[str, list[str]]:
    """The modules that were asked for, by field."""
    everything = [*linears.modules, *(name for name in linears.refused if name not in linears.modules)]
    inside = [n for n in everything if any(n.startswith(f"{name}.") for name in fields)]
    if not inside:
        raise RunError(f"{type(linears.model).__name__} has no field of PyTorch layers that could be converted")
    chosen = match_names(config.layers, inside) if config.layers else [n for n in inside if not n.startswith("propos")]
    unwanted = match_names(config.exclude, inside) if config.exclude else []
    by_field = {name: [n for n in chosen if n.startswith(f"{name}.") and n not in unwanted] for name in fields}
    wanted = {name: layers for name, layers in by_field.items() if layers}
    if not wanted:
        raise ConfigError(f"every layer that --layers matches is excluded; there are: {', '.join(inside)}")
    return wanted


def _copy_of(run: Run, linears: dict[str, list[int]]) -> Model:
    """A model of its own with the weights of a run's, built as nerfstudio's pipeline builds it."""
    teacher, views = run.model, run.pipeline.datamanager.train_dataset
    assert views is not None
    with without_lpips(), torch.random.fork_rng(devices=[]):
        model = copy.deepcopy(run.config.pipeline.model).setup(
            scene_box=views.scene_box,
            num_train_data=len(views),
            metadata=views.metadata,
            device=teacher.device,
            grad_scaler=None,
            seed_points=None,
        )
    resize(model, linears)
    model.to(teacher.device)
    model.update_to_step(run.step)
    model.load_state_dict(teacher.state_dict())
    return model.eval()


def _ask_fields(
    teacher: Model, names: Sequence[str], run: Run, config: StockConfig
) -> dict[str, list[Weighted | _Question]]:
    """What each field is asked along rays, with weights where it renders them."""
    cameras = getattr(getattr(run.pipeline.datamanager, "train_dataset", None), "cameras", None)
    if not isinstance(cameras, Cameras):
        raise RunError(f"{type(run.pipeline.datamanager).__name__} holds no training cameras to send rays from")
    rays = choose_rays(cameras, config.ray_fraction, config.max_rays, config.seed)
    device_cameras = cameras.to(teacher.device)
    kept: dict[str, list[Weighted | _Question]] = {name: [] for name in names}
    with torch.no_grad():
        for part in rays.split(RAYS_PER_BATCH):
            with _listening(teacher, names) as heard:
                teacher(ray_bundle(device_cameras, part.to(teacher.device)))
            for name, questions in heard.items():
                kept[name] += [_weighted(question, answer) for question, answer in questions]
    return kept


@contextmanager
def _listening(model: Model, names: Sequence[str]) -> Iterator[dict[str, list[tuple[_Question, Any]]]]:
    """Within it, notes what fields are asked and what they answer.

    nerfstudio calls methods of fields, not the fields, so that hooks see nothing: the methods are covered.
    """
    heard: dict[str, list[tuple[_Question, Any]]] = {name: [] for name in names}
    covered: list[tuple[nn.Module, str]] = []
    busy: set[str] = set()

    def cover(name: str, method: str) -> None:
        module = model.get_submodule(name)
        original = getattr(module, method)

        def note(*args: Any, **kwargs: Any) -> Any:
            if name in busy:  # forward asks get_density: once is enough
                return original(*args, **kwargs)
            busy.add(name)
            try:
                answer = original(*args, **kwargs)
            finally:
                busy.discard(name)
            heard[name].append((_Question(method, args, kwargs), answer))
            return answer

        setattr(module, method, note)
        covered.append((module, method))

    try:
        for name in names:
            for method in ("forward", "get_density"):
                cover(name, method)
        yield heard
    finally:
        for module, method in covered:
            delattr(module, method)


def _ask(module: nn.Module, question: _Question) -> Any:
    return getattr(module, question.method)(*question.args, **question.kwargs)


def _weighted(question: _Question, answer: Any) -> Weighted | _Question:
    """A question to a field that renders, half of its mass spread by the rendering weights of its samples."""
    samples = question.args[0] if question.args else None
    density = answer.get(FieldHeadNames.DENSITY) if isinstance(answer, dict) else None
    if not (isinstance(samples, RaySamples) and isinstance(density, Tensor) and samples.deltas is not None):
        return question
    weights = samples.get_weights(density).flatten()
    return Weighted(question, 0.5 + 0.5 * weights / weights.mean().clamp_min(1e-6))


def _costs(module: nn.Module) -> tuple[int, int]:
    """Parameters, and multiply-adds of one sample through every linear layer."""
    return count_parameters(module), sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
