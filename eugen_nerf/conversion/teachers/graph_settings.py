"""Layers of graphs that are replaced, as configured, and the student's configuration that they lead to."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from nerfstudio.engine.trainer import TrainerConfig

from eugen_nerf.conversion.conversion_settings import NO_LAYERS, DistillConfig, selected_layers
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.fitting.convert_graph import convertible_layers
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig
from eugen_nerf.core.fitting.recipes.registry import recipe_named
from eugen_nerf.core.networks.nerf_mlp import layer_specs, match_names
from eugen_nerf.core.spec import LayerSpec
from eugen_nerf.methods.graph_model import GraphModel, GraphModelConfig


def chosen_fields(teacher: GraphModel, config: DistillConfig) -> list[str]:
    """Names of the fields to convert, in the order a ray meets them."""
    names = list(teacher.graph_fields())
    if not config.fields:
        return [name for name in names if config.proposals or not name.startswith("proposal")]
    chosen = match_names(config.fields, names, "field")
    for name in names:
        settings, _ = teacher.config.settings_of(name)
        partner = next((other for other in chosen if teacher.config.settings_of(other)[0] is settings), None)
        if partner is not None and name not in chosen:
            raise ConfigError(f"{partner} and {name} share their settings: choose both with --fields, or neither")
    return chosen


def candidates(teacher: GraphModel, chosen: Sequence[str], config: DistillConfig) -> dict[str, tuple[str, ...]]:
    """Layers of the chosen fields that a budget may replace, by field; proposals are left alone.

    Raises:
        ConfigError: patterns that match nothing, or fields without a layer to convert.
    """
    fields = teacher.graph_fields()
    names = [name for name in chosen if not name.startswith("proposal")]
    possible = {name: convertible_layers(fields[name].network) for name in names}
    possible = selected_layers(possible, config)
    if not any(possible.values()):
        raise ConfigError(
            f"{', '.join(names)}: no dense layer to replace; take a run trained with --pipeline.model.variant dense"
        )
    return {name: tuple(layers) for name, layers in possible.items() if layers}


def explicit_plan(teacher: GraphModel, chosen: Sequence[str], config: DistillConfig) -> dict[str, dict[str, int]]:
    """Numbers of features by field and layer, as configured; layers that are no longer dense stay as they are.

    Where shares of the features are wanted and no number of them is given, it is all neurons of all layers.

    Raises:
        ConfigError: patterns that match nothing, or as many numbers as there are no layers.
        RunError: a field of a variant that has no dense layers to replace.
    """
    if config.layers == NO_LAYERS:
        return {name: {} for name in chosen}
    if config.shares and not config.num_features:
        layers, fields = candidates(teacher, chosen, config), teacher.graph_fields()
        return {name: {v: fields[name].network.layer(v).out_features for v in layers.get(name, ())} for name in chosen}
    plan = {name: _field_plan(teacher, name, chosen, config) for name in chosen}
    if not any(plan.values()):
        raise ConfigError(f"the settings of {', '.join(chosen)} replace no layer: name those to convert with --layers")
    return plan


def _field_plan(teacher: GraphModel, name: str, chosen: Sequence[str], config: DistillConfig) -> dict[str, int]:
    settings, attribute = teacher.config.settings_of(name)
    variant = getattr(teacher.config, attribute)
    if variant not in ("dense", "narrow", "eugen"):
        raise RunError(f"the run's {attribute} is {variant!r}; convert its dense twin ({attribute} dense)")
    own = name.startswith("proposal")
    fields = teacher.graph_fields()
    possible = {n: convertible_layers(fields[n].network) for n in chosen if own or not n.startswith("proposal")}
    names = [*selected_layers(possible, config)[name]]
    if own or not config.layers:
        configured = match_names(settings.patterns(), possible[name])
        names = [layer for layer in configured if own or layer in names]
    counts = settings.num_features if own or not config.num_features else config.num_features
    if names and len(counts) not in (1, len(names)):
        raise ConfigError(
            f"{len(counts)} numbers of features for {len(names)} layers ({', '.join(names)}); give 1 or each"
        )
    return dict(zip(names, counts * len(names) if len(counts) == 1 else counts, strict=False))


def describe_student(
    model: GraphModelConfig, teacher: GraphModel, name: str, plan: Mapping[str, int], conversion: ConversionConfig
) -> None:
    """Writes into a copy of the teacher's configuration what a field will be; no plan leaves it as it is."""
    network = teacher.graph_fields()[name].network
    settings, attribute = model.settings_of(name)
    variant = getattr(teacher.config, attribute)
    if variant == "narrow":
        for layer, width in (("trunk_0", "trunk_width"), ("bottleneck", "bottleneck_width"), ("head_0", "head_width")):
            if layer in network.names:
                setattr(settings, width, network.layer(layer).out_features)
    recipe = recipe_named(conversion.recipe)
    eugen = recipe.layer_settings(replace(conversion.eugen, train_projection=True), "relu")
    settings.train_merged &= variant == "eugen"  # a dense network did not use it, the student would
    if variant == "eugen" or recipe.layer_kind != "eugen":
        # a hybrid: the layers that it has already keep their own settings
        specs = layer_specs(settings.shape(), "eugen", settings.replacement()) if variant == "eugen" else {}
        function = settings.shape().function
        for layer, m in plan.items():
            specs[layer] = LayerSpec(recipe.layer_kind, function, m, eugen)
        setattr(model, attribute, "eugen")
        order = [layer for layer in network.names if layer in specs]
        settings.specs = {layer: specs[layer] for layer in order}
        settings.layers, settings.num_features = tuple(order), tuple(specs[layer].num_features for layer in order)
        return
    setattr(model, attribute, "eugen")
    settings.specs = {}
    settings.layers = tuple(plan)
    if not plan:
        return
    settings.num_features = tuple(plan.values())
    settings.degree, settings.phi, settings.norm = eugen.degree, eugen.phi, eugen.norm
    settings.product = eugen.product
    settings.projection, settings.train_projection = eugen.projection, True


def narrower_config(student: TrainerConfig, converted: Iterable[str]) -> TrainerConfig:
    """How a network of the student's multiply-adds is trained anew: every layer narrower, no weight of the teacher.

    Args:
        student: its configuration.
        converted: names of the fields that were.
    """
    trainer = copy.deepcopy(student)
    model = trainer.pipeline.model
    assert isinstance(model, GraphModelConfig)
    for name in converted:
        settings, attribute = model.settings_of(name)
        setattr(model, attribute, "narrow")
        settings.shares = ()
    trainer.load_dir = trainer.load_step = trainer.load_checkpoint = None
    trainer.timestamp = "{timestamp}"  # nerfstudio's own: the time at which training starts
    return trainer
