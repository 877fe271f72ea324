"""What a conversion replaces, how, and on which rays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig
from eugen_nerf.core.networks.nerf_mlp import match_names

Plan = Mapping[str, Mapping[str, int]]
"""Numbers of features by field and layer."""


NO_LAYERS = ("none",)


@dataclass(frozen=True)
class DistillConfig:
    """What to replace, how, and on which rays."""

    layers: tuple[str, ...] = ()
    """Regular expressions on layers' names; where empty, those that the run's own configuration would replace. The one
    word none: nothing, for a teacher that is calibrated itself."""
    num_features: tuple[int, ...] = ()
    """One number for all layers or one for each; where empty, the run's own configuration's."""
    proposals: bool = False
    """Whether proposal networks are converted too, by the layers and numbers of their own configuration; `fields` goes
    before it."""
    fields: tuple[str, ...] = ()
    """Regular expressions on fields' names; where empty, all but proposals."""
    exclude: tuple[str, ...] = ()
    """Regular expressions on names of layers to leave as they are."""
    conversion: ConversionConfig = field(default_factory=ConversionConfig)
    output_aware: bool = True
    """Whether neurons are chosen, and budgets shared, by effects on rendered images, from one backward pass."""
    ray_fraction: float = 1 / 64
    max_rays: int = 4096
    seed: int = 0
    shares: tuple[float, ...] = ()
    """Shares of every layer's features at which the student can be evaluated too, once calibrated: its features come in
    the order in which they were chosen. Without numbers of features, layers keep all of their neurons."""
    output_dir: Path | None = None
    """Folder of runs; the teacher's where None."""
    experiment_name: str | None = None
    """The teacher's with `-distilled` where None."""
    timestamp: str | None = None
    """The present time where None."""


def selected_layers(possible: Mapping[str, Sequence[str]], config: DistillConfig) -> dict[str, tuple[str, ...]]:
    """Of the layers that could be converted, by field, those that `layers` (all where empty) and `exclude` leave.

    Networks differ in their layers: a pattern has to match in one of them.

    Raises:
        ConfigError: a pattern that matches nothing; it lists what there is.
    """
    everything = list(dict.fromkeys(layer for layers in possible.values() for layer in layers))
    wanted = match_names(config.layers, everything) if config.layers else everything
    unwanted = match_names(config.exclude, everything) if config.exclude else []
    return {n: tuple(v for v in layers if v in wanted and v not in unwanted) for n, layers in possible.items()}
