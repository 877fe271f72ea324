"""What a conversion would lose, before anything is converted: each layer's error against m, and the front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from eugen_nerf.conversion.budget.measure import query_macs
from eugen_nerf.conversion.conversion_settings import Plan
from eugen_nerf.core.fitting.allocation import Combination, combined_front, pareto_front
from eugen_nerf.core.fitting.importance import LayerMoments
from eugen_nerf.core.fitting.recipes.recipe import Recipe
from eugen_nerf.methods.graph_model import GraphModel

PREVIEW_RAYS = 1024
"""Rays whose derivatives are taken: enough for second moments of a few hundred neurons."""


@dataclass(frozen=True)
class FieldMoments:
    """Moments of a field's layers."""

    layers: dict[str, LayerMoments]
    rays: int
    """How many rays they come from."""
    output_aware: bool
    """Whether errors are measured by their effect on rendered colours."""

    def curves(self, recipe: Recipe) -> dict[str, Tensor]:
        """For each layer, the predicted squared change of a ray's colour, summed over channels: float64 `[l + 1]`.

        Where that is not measured, the error of the layer's consumers, as a share of what they lose without the layer.

        Args:
            recipe: one that allocates neurons.
        """
        curves = {name: recipe.error_curve(m) for name, m in self.layers.items()}
        if not self.output_aware:
            return {name: curve / curve[0].clamp_min(1e-300) for name, curve in curves.items()}
        return {name: curve * self.layers[name].outputs.count / self.rays for name, curve in curves.items()}


@dataclass(frozen=True)
class Preview:
    """What every layer would lose, and the undominated choices that follow."""

    curves: dict[str, dict[str, Tensor]]
    """By field and layer, float64 `[l + 1]`: the predicted squared change of a ray's colour, summed over channels, with
    0, 1, ..., l features; shares of what consumers lose where the change is not measured."""
    metrics: dict[str, dict[str, Tensor]]
    """How neurons are chosen, by field and layer."""
    groups: dict[str, tuple[str, ...]]
    """Fields that share their settings and so their widths, by the one that counts for the cost."""
    front: list[Combination]
    """Errors are predicted mean squared changes of a colour channel; costs are multiply-adds of a query."""
    teacher_macs: int
    output_aware: bool
    """Whether errors are measured by their effect on rendered colours."""

    def plan(self, point: Combination) -> Plan:
        """The point as a conversion takes it: layers that keep their width stay dense."""
        plan: dict[str, dict[str, int]] = {}
        for group, names in self.groups.items():
            widths = {name: len(curve) - 1 for name, curve in self.curves[group].items()}
            chosen = {n: m for n, m in point.parts[group].num_features.items() if m < widths[n]}
            plan |= dict.fromkeys(names, chosen)
        return plan


def field_groups(teacher: GraphModel, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Fields that share their settings and so their widths, by the one that counts for the cost."""
    groups: dict[str, tuple[str, ...]] = {}
    names = list(names)
    for name in names:
        mine = teacher.config.settings_of(name)[0]
        together = tuple(other for other in names if teacher.config.settings_of(other)[0] is mine)
        groups[together[-1]] = together  # the last field a ray meets renders the image
    return groups


def graph_preview(teacher: GraphModel, moments: Mapping[str, FieldMoments], recipe: Recipe) -> Preview:
    """Features for every cost, from the moments of the fields' dense layers.

    Args:
        teacher: the run's model.
        moments: by field.
        recipe: one that allocates neurons.

    Raises:
        ConfigError: fields with other layers whose cost does not follow from widths (`network_terms`).
    """
    fields, groups = teacher.graph_fields(), field_groups(teacher, moments)
    curves = {name: own.curves(recipe) for name, own in moments.items()}
    fronts = {}
    for group, together in groups.items():
        errors = {layer: (sum(curves[n][layer] for n in together) / 3).tolist() for layer in curves[group]}  # type: ignore[union-attr]
        fronts[group] = pareto_front(fields[group].network, errors)
    total = query_macs(teacher)
    fixed = total - sum(fields[group].network.multiply_adds() for group in groups)
    front = [Combination(c.parts, c.multiply_adds + fixed, c.error) for c in combined_front(fronts)]
    metrics = {name: {layer: m.metric for layer, m in own.layers.items()} for name, own in moments.items()}
    return Preview(curves, metrics, groups, front, total, all(own.output_aware for own in moments.values()))
