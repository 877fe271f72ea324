"""What every field here shares: a graph of layers, the settings that choose its layers, and what a query costs.

A field encodes ray samples and runs its network on them (`raw_outputs`), in the mode that its caller hands down.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import tyro
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.fields.base_field import Field, FieldConfig
from torch import Tensor

from eugen_nerf.core import (
    EUGenConfig,
    EvaluationMode,
    FrequencyEncoding,
    LayerGraph,
    LayerSpec,
    NeRFShape,
    Replacement,
    build_variant,
    merged_for_training,
)
from eugen_nerf.core.choices import Product
from eugen_nerf.core.networks.feature_prefix import check_share
from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.core.training.merged import unmergeable_reason
from eugen_nerf.core.training.mixed_precision import Arithmetic, full_precision, network_products
from eugen_nerf.core.training.tf32 import float32_products, tf32_backward


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
    product: Product = "plain"
    """How the two projections of a feature of degree 2 are joined: plain, or with phi identity harmonic, which grows as
    its inputs do, minimum or clamped (`core/layers/products.py`)."""
    norm: bool = False
    """Whether the features depend on the input's norm; collapsed it costs about a second matrix: off by default."""
    projection: str = "gaussian"
    """Distribution of the projections at the start: gaussian, rademacher or orthogonal."""
    train_projection: bool = True
    """Whether the projections are trained or stay as they were drawn."""
    start: Literal["kaiming", "linear"] = "kaiming"
    """Scale of the projections at the start: kaiming keeps the size of features through a ReLU, linear starts as
    smooth as dense layers do, which a deformation needs, and deep networks of degree 2."""
    dense_start: Literal["linear", "kaiming"] = "linear"
    """First weights of dense layers and of those of low rank: as nn.Linear draws them, or as He et al. do."""
    train_merged: bool = False
    """Whether EUGen layers are trained as what they collapse to, half of the numbers, with their output maps multiplied
    into their consumers: for optimizers that orthogonalise matrices. Networks with a norm or a fixed projection have no
    such form and stay as they are."""
    seed: int = 0
    """Seed of the projections and of the replaced layers' first weights; `--machine.seed` is the dense layers'."""
    train_precision: Literal["float32", "bfloat16"] | None = None
    """Precision of this network's products while training, in place of the model's arithmetic. Weights, encodings and
    evaluation stay float32."""
    shares: tuple[float, ...] = ()
    """Shares of every hidden layer's features of which each training step draws one and evaluates the first features
    alone: the run can then be evaluated at each of them (`share`). Needs a network without a norm."""
    share: float = 1.0
    """Share of every hidden layer's features that is evaluated, the first ones."""
    # None, not an empty dictionary: a config.yml without this field falls back to the class's attribute
    specs: Annotated[dict[str, LayerSpec] | None, tyro.conf.Suppress] = None
    """Replaced layers by name, where they are not all alike: a conversion writes it, and it goes before the others."""

    def shape(self) -> NeRFShape:
        """The network's widths, with those of the encodings filled in."""
        raise NotImplementedError

    def build(self, variant: Variant, scene_box: SceneBox) -> GraphField:
        """The field; `scene_box` is for those whose parameters lie in a part of space."""
        return self.setup(variant=variant)

    def patterns(self) -> tuple[str, ...]:
        """`layers`, or no pattern where it is the one word none, which a command line can hold."""
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
            product=self.product,
        )
        return Replacement(self.patterns(), tuple(self.num_features), eugen, self.specs or {})


class GraphField(Field, ABC):
    """A nerfstudio field whose network is a graph of layers.

    Args:
        config: sizes and replaced layers.
        variant: one of `core.networks.nerf_mlp.VARIANTS`.
        network: in place of the one that the two describe.
    """

    def __init__(self, config: GraphFieldConfig, variant: Variant, network: LayerGraph | None = None) -> None:
        super().__init__()
        self.train_precision, self.shares = config.train_precision, config.shares
        self.arithmetic: Arithmetic | None = None
        """The model's, which sets it; without one, products are as torch and an autocast outside have them."""
        self.inference_rows: int | None = None
        """Samples that are encoded and evaluated at a time in inference mode; None for all at once."""
        if network is None:
            shape = replace(config.shape(), start=config.dense_start)
            network = build_variant(shape, variant, config.replacement())
        self.network: LayerGraph = network
        if config.train_merged and variant == "eugen" and unmergeable_reason(self.network) is None:
            self.network = merged_for_training(self.network)
        for share in (*config.shares, config.share):
            check_share(share)
        self.network.share = config.share

    @contextmanager
    def drawn_share(self, number: float) -> Iterator[None]:
        """Within it the network is evaluated at one of `shares`, if there are any, chosen by a number in [0, 1)."""
        before = self.network.share
        if self.shares:
            self.network.share = self.shares[int(number * len(self.shares))]
        try:
            yield
        finally:
            self.network.share = before

    def input_encodings(self) -> tuple[FrequencyEncoding, ...] | None:
        """For each of the network's inputs, what encodes the point in its last columns, for plans that encode
        (`core/inference/plan.py`); None where the field's inputs are made otherwise."""
        return None

    @abstractmethod
    def encode(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """The network's inputs at the samples, `[..., d_i]` each: those that the outputs depend on.

        Args:
            ray_samples: `[...]`.
            outputs: numbers of the network's outputs; all by default.
        """

    def network_inputs(
        self, ray_samples: RaySamples, mode: EvaluationMode, outputs: tuple[int, ...] | None
    ) -> tuple[Tensor, ...]:
        """What the network takes in a mode: what `encode` makes, or what a plan encodes itself."""
        return self.encode(ray_samples, outputs)

    @full_precision()
    def raw_outputs(
        self, ray_samples: RaySamples, mode: EvaluationMode, outputs: tuple[int, ...] | None = None
    ) -> tuple[Tensor, ...]:
        """The network's outputs at the samples, float32 `[..., channels]` each, before any activation.

        Args:
            ray_samples: `[...]`.
            mode: differentiable or inference, which goes in parts of `inference_rows`.
            outputs: numbers of the outputs that are returned; all by default.
        """

        def at_once(samples: RaySamples) -> tuple[Tensor, ...]:
            return self.run_network(*self.network_inputs(samples, mode, outputs), mode=mode, outputs=outputs)

        if not self.in_parts(mode) or not math.prod(ray_samples.shape):
            return at_once(ray_samples)
        rays = max(1, (self.inference_rows or 1) // math.prod(ray_samples.shape[1:]))
        parts = [at_once(ray_samples[start : start + rays]) for start in range(0, len(ray_samples), rays)]
        return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))

    def in_parts(self, mode: EvaluationMode) -> bool:
        """Whether samples are evaluated some at a time."""
        return mode is EvaluationMode.INFERENCE and self.inference_rows is not None

    def plan_encodes(self, mode: EvaluationMode) -> bool:
        """Whether the network takes points, because a plan runs that encodes them."""
        return self._runs_plan(mode) and bool(getattr(self.network.plan, "encodes", False))

    def run_network(
        self, *inputs: Tensor, mode: EvaluationMode, outputs: tuple[int, ...] | None = None
    ) -> tuple[Tensor, ...]:
        """The network's outputs, float32 `[..., channels]` each, computed in the field's arithmetic.

        Args:
            inputs: those that the outputs depend on.
            mode: differentiable or inference.
            outputs: numbers of the outputs that are returned; all by default.
        """
        with self.network_arithmetic(inputs[0].device, mode):
            raw = self.network(*inputs, outputs=outputs, mode=mode)
        self.set_backward_arithmetic(raw, mode)
        return tuple(v.float() for v in raw)

    def set_backward_arithmetic(self, outputs: tuple[Tensor, ...], mode: EvaluationMode) -> None:
        """Lets the backward pass from these outputs multiply as the forward pass did."""
        if self._multiplies_tf32(outputs[0].device, mode):
            tf32_backward(outputs)

    @contextmanager
    def network_arithmetic(self, device: torch.device, mode: EvaluationMode) -> Iterator[None]:
        """Within it products are those of this network: half precision, TF32 or neither."""
        with network_products(device, self._own_dtype(mode)):
            if not self._multiplies_tf32(device, mode):
                yield
                return
            with float32_products("tf32"):
                yield

    def _own_dtype(self, mode: EvaluationMode) -> torch.dtype | None:
        """The dtype of products that is set for this network now; None where an autocast outside decides."""
        if self._runs_plan(mode):
            return torch.float32
        chosen = self.train_precision if self.training else None
        if chosen is None and self.training and self.arithmetic == "bfloat16":
            chosen = "bfloat16"
        if chosen is None and self.arithmetic == "exact":
            chosen = "float32"
        return None if chosen is None else getattr(torch, chosen)

    def _multiplies_tf32(self, device: torch.device, mode: EvaluationMode) -> bool:
        return device.type == "cuda" and self.arithmetic in ("fast", "bfloat16") and not self._runs_plan(mode)

    def _runs_plan(self, mode: EvaluationMode) -> bool:
        """Whether a plan runs, which brings its own precision."""
        return mode is EvaluationMode.INFERENCE and self.network.plan is not None

    def inference_parameters(self) -> int:
        """Numbers that evaluation keeps: the collapsed network's weights and biases, and what the encoding reads."""
        outside = sum(p.numel() for p in self.parameters()) - sum(p.numel() for p in self.network.parameters())
        return self.network.collapsed().count_numbers() + outside

    def macs_per_query(self) -> int:
        """Multiply-adds of the collapsed network for one point."""
        return self.network.multiply_adds()
