"""The teacher of stock runs that no method of ours stands for: mipnerf, nerfacto, fields of `nn.Linear`.

Calls of their fields are recorded once, along rays of the training views. So the samples are where the teacher puts
them, whatever is converted, and the model around the fields (proposal sampling, appearance embeddings, camera
optimisation) stays as it is.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from nerfstudio.fields.base_field import Field
from nerfstudio.models.base_model import Model
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from torch import Tensor, nn

from eugen_nerf.conversion.budget.field_preview import PREVIEW_RAYS, Preview
from eugen_nerf.conversion.budget.measure import query_macs
from eugen_nerf.conversion.conversion_settings import NO_LAYERS, DistillConfig, Plan
from eugen_nerf.conversion.run_writer import FieldReport
from eugen_nerf.conversion.teachers.field_calls import FieldCall, record_field_calls, replay_call
from eugen_nerf.conversion.teachers.teacher import FieldProgress, Metrics, Student, Teacher, no_progress
from eugen_nerf.core import Weighted
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.fitting.allocation import Combination, combined_front
from eugen_nerf.core.fitting.convert_graph import before_after
from eugen_nerf.core.modules.convert_modules import unit_counts
from eugen_nerf.core.modules.layer_choice import NothingToConvert
from eugen_nerf.core.modules.linears import Linears, linear_costs
from eugen_nerf.core.modules.module_conversion import ModuleConversion
from eugen_nerf.core.modules.outputs import tensors_in
from eugen_nerf.core.networks.nerf_mlp import match_names
from eugen_nerf.core.spec import count_parameters
from eugen_nerf.methods.converted import ConvertedPipelineConfig, resize
from eugen_nerf.methods.runs.loading import Run, query_module, without_lpips
from eugen_nerf.methods.runs.training_rays import RAYS_PER_BATCH, ray_bundle, rendered_colours, training_views


class ModuleTeacher(Teacher):
    """A run of nerfstudio's own pipeline, whose fields hold linear layers; or a run that was converted this way.

    Args:
        run: loaded with its training views.
        config: what to replace: `layers` and `exclude` are regular expressions on full module names, such as
            field.mlp_base.*, where empty every hidden layer of every field but proposals; where `num_features` is
            empty, half of each layer's units stay.

    Raises:
        ConfigError: patterns that match nothing, or only layers that cannot be converted (with the reasons).
        RunError: a run whose pipeline is not nerfstudio's own, that has no field of PyTorch layers, or a place that is
            taken.
    """

    model: Model

    def __init__(self, run: Run, config: DistillConfig) -> None:
        pipeline = run.config.pipeline
        if type(pipeline) not in (VanillaPipelineConfig, ConvertedPipelineConfig):
            raise RunError(f"{run.path} has a pipeline of its own ({type(pipeline).__name__}) and cannot be converted")
        if config.shares:
            raise ConfigError(
                "shares of the features (--elastic) need a run of vanilla-nerf, dnerf or a method eugen-*, not of "
                f"{run.config.method_name}"
            )
        if config.fields or config.proposals:
            raise ConfigError(
                f"fields of {run.config.method_name} have no names of their own: choose their layers by --layers, such "
                "as field.mlp_base.* or proposal_networks.*"
            )
        super().__init__(run, config, run.trained_model, copy.deepcopy(run.config))
        self._earlier = dict(pipeline.linears) if isinstance(pipeline, ConvertedPipelineConfig) else {}
        self.parts: dict[str, ModuleConversion] = {}
        """By the full name of a field, what of it can be converted."""
        self._recorded_bytes = 0
        if config.layers != NO_LAYERS:
            self._find_layers()

    def _find_layers(self) -> None:
        """Records the calls of the chosen fields, and finds their hidden layers.

        Raises:
            ConfigError: none of them can be converted.
        """
        places = {name: module for name, module in self.model.named_modules() if isinstance(module, Field)}
        names = [n for n in places if not any(n.startswith(f"{other}.") for other in places)]
        wanted = _wanted(Linears(self.model), names, self.config)
        recorded = record_field_calls(self.model, [*wanted], self.cameras, self.rays)
        self._recorded_bytes = sum(t.numel() * t.element_size() for each in recorded.values() for t in _held(each))
        refusals = []
        for name, layers in wanted.items():
            try:
                self.parts[name] = ModuleConversion(
                    self.model,
                    lambda own=recorded[name]: own,  # type: ignore[misc]
                    lambda model, call, name=name: replay_call(model.get_submodule(name), call),  # type: ignore[misc]
                    self.config.conversion,
                    layers=tuple(map(re.escape, layers)),
                )
            except NothingToConvert as error:
                refusals.append(error)
        if not self.parts:
            raise refusals[0]

    def memory_line(self) -> str:
        """What fitting will hold in memory, in words."""
        kept = f"{self._recorded_bytes / 1e6:,.0f} MB of the calls of fields along them"
        return f"{len(self.rays):,} rays; in memory {kept}, and one layer's inputs and outputs"

    def configured_plan(self) -> Plan:
        """Numbers of units as configured; half of each layer's where nothing is."""
        numbers = self.config.num_features
        counts = numbers[0] if len(numbers) == 1 else numbers or 0.5
        return {name: unit_counts(part.widths, counts) for name, part in self.parts.items()}

    def metrics(self, plan: Plan, progress: FieldProgress = no_progress) -> Metrics:
        """By the rendered colours' gradients where these are configured, of every field at once."""
        return self._colour_metrics()

    def _colour_metrics(self) -> dict[str, dict[str, Tensor]]:
        if not (self.config.output_aware and self.recipe.chooses_neurons):
            return {}
        return {name: part.metrics(self._colours()) for name, part in self.parts.items()}

    def preview(self, progress: FieldProgress = no_progress) -> Preview:
        """From one pass over the recorded calls; only of layers that queries run through (no proposals)."""
        queried = {id(module) for module in query_module(self.model).modules()}
        outside = [n for p in self.parts.values() for n in p.widths if id(p.linears.modules[n]) not in queried]
        if outside:
            raise ConfigError(f"budgets are for what queries of the field run through; leave {outside[0]} out")
        metrics = self._colour_metrics()
        fronts, curves = {}, {}
        total = rest = query_macs(self.model)
        for name, part in self.parts.items():
            own = part.preview(metrics.get(name, {}), partial(progress, name, "moments"))
            scale = 1.0 / len(self.rays) if name in metrics else 1.0
            curves[name] = {layer: curve * scale for layer, curve in own.curves.items()}
            fronts[name] = own.front
            rest -= own.multiply_adds
        front = [
            Combination(c.parts, c.multiply_adds + rest, c.error / (3 * len(self.rays) if metrics else 1))
            for c in combined_front(fronts)
        ]
        return Preview(curves, metrics, {name: (name,) for name in self.parts}, front, total, bool(metrics))

    def convert(self, plan: Plan, progress: FieldProgress = no_progress, metrics: Metrics | None = None) -> Student:
        """Field by field; parameters and multiply-adds in reports are those of the whole field."""
        student = self._copy()
        installed, reports, sizes = Linears(student), [], dict(self._earlier)
        for name, counts in plan.items():
            if not counts:
                continue
            start, field = time.perf_counter(), student.get_submodule(name)
            before, costs = _costs(field), linear_costs(field)
            own = (metrics or {}).get(name)
            new, layers = self.parts[name].convert(counts, own, partial(progress, name))
            installed.install({key: copy.deepcopy(linear) for key, linear in new.items()})
            sizes |= {n: [m.in_features, m.out_features, int(m.bias is not None)] for n, m in new.items()}
            after, seconds = _costs(field), time.perf_counter() - start
            parameters = (before[0], after[0])
            pairs = before_after(costs, linear_costs(field))
            shares = {f"{name}.{layer}": pair for layer, pair in pairs.items()}
            reports.append(
                FieldReport(name, layers, parameters, (before[1], after[1]), seconds, running=parameters, shares=shares)
            )
        trainer = copy.deepcopy(self.trainer)
        own_pipeline = trainer.pipeline
        trainer.pipeline = ConvertedPipelineConfig(
            datamanager=own_pipeline.datamanager, model=own_pipeline.model, linears=sizes
        )
        return Student(trainer, student.eval(), reports)

    def forget(self) -> None:
        """Nothing is kept on disk."""

    def sketch(self, plan: Plan) -> Model:
        """A student of the plan's shape, weights aside."""
        student = self._copy()
        for name, counts in plan.items():
            resize(student, {n: [d, m, int(bias)] for n, (d, m, bias) in self.parts[name].sizes(counts).items()})
        return student.eval()

    def _colours(self) -> Iterator[Callable[[], Sequence[Tensor]]]:
        cameras = self.cameras.to(self.model.device)
        for rays in self.rays[:PREVIEW_RAYS].split(RAYS_PER_BATCH):
            yield lambda rays=rays: rendered_colours(self.model, ray_bundle(cameras, rays.to(self.model.device)))  # type: ignore[misc]

    def _copy(self) -> Model:
        """A model of its own with the teacher's weights, built as nerfstudio's pipeline builds it."""
        views = training_views(self.run.pipeline.datamanager)
        with without_lpips(), torch.random.fork_rng(devices=[]):
            model = copy.deepcopy(self.run.config.pipeline.model).setup(
                scene_box=views.scene_box,
                num_train_data=len(views),
                metadata=views.metadata,
                device=self.model.device,
                grad_scaler=None,
                seed_points=None,
            )
        resize(model, self._earlier)
        model.to(self.model.device)
        model.update_to_step(self.run.step)
        model.load_state_dict(self.model.state_dict())
        return model.eval()


def _wanted(linears: Linears, fields: Sequence[str], config: DistillConfig) -> dict[str, list[str]]:
    """The chosen modules, by field."""
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


def _held(calls: Sequence[Weighted | FieldCall]) -> Iterator[Tensor]:
    """All tensors in the arguments of a field's calls."""
    for item in calls:
        call = item.batch if isinstance(item, Weighted) else item
        yield from tensors_in([call.args, call.kwargs])


def _costs(module: nn.Module) -> tuple[int, int]:
    """Parameters, and multiply-adds of one sample through every linear layer."""
    return count_parameters(module), sum(linear_costs(module).values())
