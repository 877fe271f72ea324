"""What every field here shares: a graph of layers, the settings that choose its layers, and what a query costs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.fields.base_field import Field, FieldConfig
from torch import Tensor

from eugen_nerf.core.encodings import FrequencyEncoding
from eugen_nerf.core.eugen import EUGenConfig
from eugen_nerf.core.graph import LayerGraph
from eugen_nerf.core.nerf import NeRFShape, Replacement, Variant, build_variant
from eugen_nerf.core.spec import LayerSpec


@dataclass
class GraphFieldConfig(FieldConfig):
    """Which layers of a field's network are replaced, and by what."""

    layers: tuple[str, ...] = ("trunk_.*",)
    """Hidden layers to replace: regular expressions on trunk_0, trunk_1, ..., head_0, ..., or the one word none; unused
    by dense."""
    num_features: tuple[int, ...] = (128,)
    """Random features m: one number for all replaced layers, or one for each in the network's order."""
    degree: int = 1
    """Highest degree k of Eq. (1)."""
    phi: str = "relu"
    """Outer function of the features."""
    norm: bool = False
    """Whether the features see the input's norm; collapsed it costs about a second matrix, so it is off by default."""
    projection: str = "gaussian"
    """Distribution of the projections at the start: gaussian, rademacher or orthogonal."""
    train_projection: bool = True
    """Whether the projections are trained or stay as they were drawn."""
    start: Literal["kaiming", "linear"] = "kaiming"
    """Scale of the projections at the start: kaiming keeps the size of features through a ReLU, linear starts as
    smooth as dense layers do, which a deformation needs, and deep networks of degree 2."""
    seed: int = 0
    """Seed of the projections and of the replaced layers' first weights; `--machine.seed` is the dense layers'."""
    train_precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the matrix products while training, worth trying on processors with bfloat16 units (nerfstudio
    switches its own mixed precision off on a CPU). Weights, encodings and evaluation stay float32."""
    # None and not an empty dictionary: a config.yml from before this field existed finds it as the class's attribute
    specs: Annotated[dict[str, LayerSpec] | None, tyro.conf.Suppress] = None
    """Replaced layers by name, where they are not all alike: a conversion writes it, and it goes before the others."""

    def shape(self) -> NeRFShape:
        """The network's widths, with those of the encodings filled in."""
        raise NotImplementedError

    def build(self, variant: Variant, scene_box: SceneBox) -> GraphField:
        """The field; `scene_box` is for those whose parameters lie in a part of space."""
        return self.setup(variant=variant)

    def patterns(self) -> tuple[str, ...]:
        """`layers`, where the word none stands for no pattern: a command line cannot say that well."""
        return () if tuple(self.layers) == ("none",) else tuple(self.layers)

    def replacement(self) -> Replacement:
        """Which layers are replaced, by what."""
        eugen = EUGenConfig(
            degree=self.degree,
            phi=self.phi,
            norm=self.norm,
            projection=self.projection,
            train_projection=self.train_projection,
            start=self.start,
            seed=self.seed,
        )
        return Replacement(self.patterns(), tuple(self.num_features), eugen, self.specs or {})


class GraphField(Field, ABC):
    """A nerfstudio field whose network is a graph of layers.

    Args:
        config: sizes and replaced layers.
        variant: one of `core.nerf.VARIANTS`.
    """

    def __init__(self, config: GraphFieldConfig, variant: Variant) -> None:
        super().__init__()
        self.half_training = config.train_precision == "bfloat16"
        self.evaluation_rows: int | None = None
        """Samples that are encoded and asked at a time where no gradients are asked for; None for all at once."""
        self.network: LayerGraph = build_variant(config.shape(), variant, config.replacement())

    def input_encodings(self) -> tuple[FrequencyEncoding, ...] | None:
        """What makes each of the network's inputs of a point, which stands in its last columns, for plans that encode
        (`core/plan.py`); None where the field's inputs are made otherwise."""
        return None

    @property
    def plan_encodes(self) -> bool:
        """Whether the network is asked with points now: it answers by a plan that encodes them."""
        return bool(getattr(self.network.evaluation, "encodes", False)) and not torch.is_grad_enabled()

    @abstractmethod
    def encode(self, ray_samples: RaySamples) -> tuple[Tensor, ...]:
        """The network's inputs at the samples, `[..., d_i]` each."""

    def encode_needed(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None) -> tuple[Tensor, ...]:
        """Those of the network's inputs that some of its outputs depend on."""
        inputs = self.encode(ray_samples)
        return tuple(inputs[i] for i in self.network.needed_inputs(outputs))

    def query(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """The network's outputs at the samples, float32 `[..., channels]` each, before any activation.

        Args:
            ray_samples: `[...]`.
            outputs: numbers of the outputs that are wanted; all by default.
        """
        if torch.is_grad_enabled() or self.evaluation_rows is None or not math.prod(ray_samples.shape):
            return self._query_at_once(ray_samples, outputs)
        rays = max(1, self.evaluation_rows // math.prod(ray_samples.shape[1:]))
        starts = range(0, len(ray_samples), rays)
        parts = [self._query_at_once(ray_samples[start : start + rays], outputs) for start in starts]
        return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))

    def _query_at_once(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None) -> tuple[Tensor, ...]:
        inputs = self.encode_needed(ray_samples, outputs)
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=self.training and self.half_training):
            found = self.network(*inputs, outputs=outputs) if outputs else self.network(*inputs)
        return tuple(v.float() for v in found)

    def density_alone(self, ray_samples: RaySamples) -> Tensor:
        """Density `[..., 1]`, equal to that of `forward`, by what it takes and nothing else."""
        return self.get_density(ray_samples)[0]

    def answer(self, ray_samples: RaySamples, *, colours: bool = True) -> dict[FieldHeadNames, Tensor]:
        """`DENSITY` `[..., 1]` and, unless they are not wanted, `RGB` `[..., 3]`."""
        return self(ray_samples) if colours else {FieldHeadNames.DENSITY: self.density_alone(ray_samples)}

    def answer_at(
        self, ray_samples: RaySamples, mask: Tensor, positions: Tensor, *, colours: bool = True
    ) -> dict[FieldHeadNames, Tensor]:
        """`answer` at the `n` samples where a mask `[...]` is true, `[n, channels]`.

        Args:
            ray_samples: samples `[...]`.
            mask: which of them.
            positions: those of all samples, `[..., 3]`, which who made the mask has at hand.
            colours: whether they are wanted.
        """
        return self.answer(ray_samples[mask], colours=colours)

    def inference_parameters(self) -> int:
        """Numbers that evaluation keeps: the collapsed network's weights and biases, and what the encoding reads."""
        outside = sum(p.numel() for p in self.parameters()) - sum(p.numel() for p in self.network.parameters())
        return self.network.collapsed().count_numbers() + outside

    def macs_per_query(self) -> int:
        """Multiply-adds of the collapsed network for one point."""
        return self.network.multiply_adds()
