"""Networks of layers, and their collapse.

A graph is layers plus wiring: node i reads the concatenation of earlier values (inputs come first, then nodes in
order). Skip connections, late inputs and several heads on one trunk are all wiring. Every consumer of a layer's output
may multiply that layer's affine map into its own projection (App. B.1), so a stack never has to form the outputs of
width l in between. Training without the norm column uses the same merged matrices, formed once a step, with gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layer import FeatureLayer
from eugen_nerf.core.stage import Affine, MergedStage, Stage

Step = tuple[MergedStage, tuple[int, ...]]


@dataclass(frozen=True)
class CollapsedGraph:
    """A graph with every affine map multiplied into its consumers."""

    steps: tuple[Step, ...]
    """Merged stages with the values each one reads; inputs come first, step i makes the i-th value after them."""
    outputs: tuple[tuple[int, Affine], ...]
    """For each output, the value it comes from and the affine map still owed on it."""

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

    def count_numbers(self) -> int:
        """Weights, biases and norm columns and factors that evaluation keeps."""
        tensors = [
            t for s, _ in self.steps for t in (s.weight, s.bias, s.norm, *(t for f in s.factors if f for t in f))
        ]
        tensors += [t for _, a in self.outputs for t in (a.weight, a.bias)]
        return sum(t.numel() for t in tensors if t is not None)

    def ungrouped(self, input_widths: Sequence[int]) -> CollapsedGraph:
        """The same graph with dense matrices alone, for formats that know no other.

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
        return CollapsedGraph(steps, tuple((v, _cast_affine(a, dtype)) for v, a in self.outputs))


class LayerGraph(nn.Module):
    """Layers and wiring.

    Args:
        layers: by name, in the order they run. Names hold letters, digits and underscores.
        wiring: for each layer, the values it reads: an index below `len(input_widths)` is an input, any other a layer.
        input_widths: width of each input.
        outputs: names of the layers whose values are returned.

    Raises:
        ConfigError: wiring that does not fit the widths.
    """

    def __init__(
        self,
        layers: Mapping[str, FeatureLayer],
        wiring: Mapping[str, Sequence[int | str]],
        input_widths: Sequence[int],
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(dict(layers))
        self.input_widths = tuple(input_widths)
        self.names = tuple(layers)
        index = {name: len(input_widths) + i for i, name in enumerate(self.names)}
        known = {*range(len(input_widths) + len(self.names)), *self.names}
        for name in self.names:
            for v in wiring.get(name, ("nothing",)):
                if v not in known:
                    raise ConfigError(
                        f"layer {name!r} reads {v!r}; there are {len(input_widths)} inputs and {', '.join(self.names)}"
                    )
        for name in outputs:
            if name not in index:
                raise ConfigError(f"output {name!r} is no layer; there are {', '.join(self.names)}")
        self.reads = {name: tuple(v if isinstance(v, int) else index[v] for v in wiring[name]) for name in self.names}
        self.outputs = tuple(index[name] for name in outputs)
        self.evaluation: Callable[..., tuple[Tensor, ...]] | None = None
        """What answers instead of the collapsed graph where no gradients are asked for (`core/precision.py`)."""
        self._plan: CollapsedGraph | None = None
        self._plan_key: tuple[object, ...] | None = None
        for position, name in enumerate(self.names):
            if any(v >= index[name] for v in self.reads[name]):
                raise ConfigError(f"layer {name!r} reads a value that comes after it")
            width = sum(self.width(v) for v in self.reads[name])
            if width != self.layer(name).in_features:
                raise ConfigError(
                    f"layer {name!r} (number {position}) takes {self.layer(name).in_features} inputs, "
                    f"its wiring brings {width}"
                )

    def layer(self, name: str) -> FeatureLayer:
        """The layer called `name`."""
        found = self.layers[name]
        assert isinstance(found, FeatureLayer)
        return found

    def replace_layer(self, name: str, layer: FeatureLayer) -> None:
        """Puts another layer of the same widths in the place of `name`.

        Raises:
            ConfigError: other widths.
        """
        old = self.layer(name)
        if (old.in_features, old.out_features) != (layer.in_features, layer.out_features):
            raise ConfigError(
                f"layer {name!r} is {old.in_features} -> {old.out_features}, its replacement "
                f"{layer.in_features} -> {layer.out_features}"
            )
        self.layers[name] = layer

    def values(self, *inputs: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        """Every layer's output, layer by layer, nothing merged; `upto` is the last one computed."""
        values: list[Tensor] = list(inputs)
        found: dict[str, Tensor] = {}
        for name in self.names:
            found[name] = self.layer(name)(self.gather(name, values))
            values.append(found[name])
            if name == upto:
                break
        return found

    def gather(self, name: str, values: Sequence[Tensor]) -> Tensor:
        """The input of layer `name`: what it reads from `values` (inputs, then layers in order), concatenated."""
        parts = [values[v] for v in self.reads[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs for inputs `[..., d_i]` that share their leading shape.

        Raises:
            ConfigError: another number of inputs, or other widths.
        """
        if tuple(x.shape[-1] for x in inputs) != self.input_widths:
            raise ConfigError(f"inputs have widths {[x.shape[-1] for x in inputs]}, expected {list(self.input_widths)}")
        if not torch.is_grad_enabled():
            return (self.evaluation or self.collapsed())(*inputs)
        if any(self.layer(name).uses_norm for name in self.names):
            # the norm needs each layer's output: forming it is cheaper than a QR factorisation with gradients
            values = list(inputs) + list(self.values(*inputs).values())
            return tuple(values[v] for v in self.outputs)
        return self._merge()(*inputs)

    def collapsed(self) -> CollapsedGraph:
        """The collapsed graph of the present weights, kept until a weight changes.

        Changes through `.data` leave no trace that could be seen here: call `collapse` after them.
        """
        tensors = [*self.parameters(), *self.buffers()]
        key = tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in tensors)
        if self._plan is None or key != self._plan_key:
            self._plan = self.collapse()
            self._plan_key = key
        assert self._plan is not None
        return self._plan

    @torch.no_grad()
    def collapse(self) -> CollapsedGraph:
        """Multiplies every affine map into its consumers, in float64, and returns the result in the graph's dtype."""
        with torch.inference_mode(False), torch.no_grad():  # leaving inference mode turns gradients on again
            return self._merge(torch.float64).cast(next(iter(self.parameters())).dtype)

    def multiply_adds(self) -> int:
        """Multiply-adds a query costs at evaluation, collapsed."""
        return self.collapsed().multiply_adds()

    def width(self, value: int) -> int:
        """Width of a value: an input, or a layer's output."""
        inputs = len(self.input_widths)
        return self.input_widths[value] if value < inputs else self.layer(self.names[value - inputs]).out_features

    def _merge(self, dtype: torch.dtype | None = None) -> CollapsedGraph:
        """The collapsed graph, differentiable in the layers' parameters; `dtype` casts their tensors first."""
        pieces = {name: self.layer(name).pieces() for name in self.names}
        if dtype is not None:
            pieces = {n: [(_cast_stage(s, dtype), _cast_affine(a, dtype)) for s, a in p] for n, p in pieces.items()}
        steps: list[Step] = []
        inputs = len(self.input_widths)
        # where each value stands among the steps' values, and the affine map still owed on it
        position, owed = list(range(inputs)), [Affine()] * inputs
        for value, name in enumerate(self.names, start=inputs):
            reads = tuple(position[v] for v in self.reads[name])
            maps = [owed[v] for v in self.reads[name]]
            widths = [self.width(v) for v in self.reads[name]]
            for number, (stage, affine) in enumerate(pieces[name], start=1):
                merged = stage.merge(maps, widths)
                if number == len(pieces[name]) and len(reads) == 1 and stage.linear and affine.weight is None:
                    maps = [Affine(merged.weight, merged.bias)]  # nothing but a matrix: its readers may take it over
                    break
                steps.append((merged, reads))
                reads, maps = (inputs + len(steps) - 1,), [affine]
                widths = [stage.num_features if affine.weight is None else affine.weight.shape[0]]
            if not self._pays_to_merge(value, maps[0], pieces):
                steps.append((_as_stage(maps[0]), reads))
                reads, maps = (inputs + len(steps) - 1,), [Affine()]
            position.append(reads[0])
            owed.append(maps[0])
        return CollapsedGraph(tuple(steps), tuple((position[v], owed[v]) for v in self.outputs))

    def _pays_to_merge(self, value: int, affine: Affine, pieces: Mapping[str, list[tuple[Stage, Affine]]]) -> bool:
        """Whether reading features through merged matrices costs no more multiply-adds than forming the output once."""
        if affine.weight is None:
            return True
        readers = [pieces[name][0][0] for name in self.names if value in self.reads[name]]
        if any(stage.groups > 1 for stage in readers):
            return False
        if value in self.outputs:
            return not readers
        width, features = affine.weight.shape
        rows = sum(s.weight.shape[0] for s in readers)
        factors = sum(min(width, features + 1) for s in readers if s.norm is not None)
        return features * (rows + factors) <= width * (features + rows)


def _as_stage(affine: Affine) -> MergedStage:
    assert affine.weight is not None
    return MergedStage(affine.weight, affine.bias, None, 1, True, "identity")


def _cast_affine(affine: Affine, dtype: torch.dtype) -> Affine:
    return Affine(_cast(affine.weight, dtype), _cast(affine.bias, dtype))


def _cast_stage(s: Stage, dtype: torch.dtype) -> Stage:
    return replace(s, weight=s.weight.to(dtype), bias=_cast(s.bias, dtype), norm=_cast(s.norm, dtype))


def _cast_merged(s: MergedStage, dtype: torch.dtype) -> MergedStage:
    factors = tuple(None if f is None else (f[0].to(dtype, copy=True), f[1].to(dtype, copy=True)) for f in s.factors)
    weight = s.weight.to(dtype, copy=True)
    return replace(s, weight=weight, bias=_cast(s.bias, dtype), norm=_cast(s.norm, dtype), factors=factors)


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype, copy=True)
