"""A network with every affine map multiplied into its consumers: what inference runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.stage import Affine, MergedStage, Stage

Step = tuple[MergedStage, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class CollapsedGraph:
    """A graph with every affine map multiplied into its consumers; made by `LayerGraph.collapse`.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import DenseLinear, EUGenConfig, EUGenLinear, LayerGraph
        >>> config = EUGenConfig(num_features=4, norm=False)
        >>> layers = {"hidden": EUGenLinear(8, 16, config), "out": DenseLinear(16, 2, "identity")}
        >>> network, x = LayerGraph(layers, {"hidden": [0], "out": ["hidden"]}, (8,), ["out"]), torch.rand(5, 8)
        >>> collapsed = network.collapse()
        >>> torch.allclose(collapsed(x)[0], network(x)[0], atol=1e-5), collapsed.multiply_adds()  # 4 x 8 and 2 x 4
        (True, 40)
    """

    steps: tuple[Step, ...]
    """Merged stages with the values each one reads; inputs come first, step i makes the i-th value after them."""
    outputs: tuple[tuple[int, Affine], ...]
    """For each output, the value it comes from and the affine map that remains to be applied to it."""

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs for inputs `[..., d_i]` that share their leading shape."""
        values = list(inputs)
        for stage, reads in self.steps:
            values.append(stage([values[v] for v in reads]))
        return tuple(affine(values[v]) for v, affine in self.outputs)

    def multiply_adds(self) -> int:
        """Multiply-adds of all matrix products for one input (element-wise work is not counted)."""
        kept = sum(a.weight.numel() for _, a in self.outputs if a.weight is not None)
        return kept + sum(stage.multiply_adds() for stage, _ in self.steps)

    def tensors(self) -> list[Tensor]:
        """Weights, biases and norm columns and factors: all that evaluation keeps."""
        kept = [t for s, _ in self.steps for t in (s.weight, s.bias, s.norm, *(t for f in s.factors if f for t in f))]
        kept += [t for _, a in self.outputs for t in (a.weight, a.bias)]
        return [t for t in kept if t is not None]

    def count_numbers(self) -> int:
        """Number of elements of all `tensors`."""
        return sum(t.numel() for t in self.tensors())

    def pruned(self, inputs: int, outputs: Sequence[int]) -> tuple[CollapsedGraph, tuple[int, ...]]:
        """The graph of some outputs alone, its tensors shared with this one's, and the inputs that they depend on.

        Steps that are left compute what they did: outputs equal those of the whole bit for bit.

        Args:
            inputs: number of this graph's inputs.
            outputs: numbers of the outputs that are wanted, in the order wanted.

        Returns:
            A graph whose inputs are those that it reads, and their numbers among all, in order.

        Raises:
            ConfigError: no outputs, or one that the graph has not.
        """
        if not outputs or any(not 0 <= i < len(self.outputs) for i in outputs):
            raise ConfigError(f"outputs {list(outputs)} were requested of a network that has {len(self.outputs)}")
        needed = {self.outputs[i][0] for i in outputs}
        for number in reversed(range(len(self.steps))):
            if inputs + number in needed:
                needed.update(self.steps[number][1])
        position = {value: number for number, value in enumerate(sorted(needed))}
        steps = tuple(
            (stage, tuple(position[v] for v in reads))
            for number, (stage, reads) in enumerate(self.steps)
            if inputs + number in needed
        )
        ends = tuple((position[self.outputs[i][0]], self.outputs[i][1]) for i in outputs)
        return CollapsedGraph(steps, ends), tuple(v for v in position if v < inputs)

    def ungrouped(self, input_widths: Sequence[int]) -> CollapsedGraph:
        """The same graph with dense matrices alone, for formats that support no other.

        Args:
            input_widths: width of each input.
        """
        widths, steps = list(input_widths), []
        for stage, reads in self.steps:
            steps.append((stage.ungrouped(sum(widths[v] for v in reads)), reads))
            widths.append(stage.num_features)
        return CollapsedGraph(tuple(steps), self.outputs)

    def cast(self, dtype: torch.dtype) -> CollapsedGraph:
        """The same graph with tensors of another dtype."""
        steps = tuple((_cast_merged(stage, dtype), reads) for stage, reads in self.steps)
        return CollapsedGraph(steps, tuple((v, cast_affine(a, dtype)) for v, a in self.outputs))


def cast_affine(affine: Affine, dtype: torch.dtype) -> Affine:
    """The same map with tensors of another dtype, which are copies."""
    return Affine(_cast(affine.weight, dtype), _cast(affine.bias, dtype))


def cast_stage(s: Stage, dtype: torch.dtype) -> Stage:
    """The same stage with tensors of another dtype."""
    return replace(s, weight=s.weight.to(dtype), bias=_cast(s.bias, dtype), norm=_cast(s.norm, dtype))


def _cast_merged(s: MergedStage, dtype: torch.dtype) -> MergedStage:
    factors = tuple(None if f is None else (f[0].to(dtype, copy=True), f[1].to(dtype, copy=True)) for f in s.factors)
    weight = s.weight.to(dtype, copy=True)
    return replace(s, weight=weight, bias=_cast(s.bias, dtype), norm=_cast(s.norm, dtype), factors=factors)


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype, copy=True)
