"""Networks of layers, and their collapse.

A graph is layers plus wiring: node i reads the concatenation of earlier values (inputs come first, then nodes in
order). Skip connections, late inputs and several heads on one trunk are all wiring. Every consumer of a layer's output
may multiply that layer's affine map into its own projection (App. B.1), so a stack never has to form the outputs of
width l in between. Training without the norm column uses the same merged matrices, formed once a step, with gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.layers.stage import Affine, MergedStage, Stage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph, Step, cast_affine, cast_stage
from eugen_nerf.core.networks.evaluation_mode import EvaluationMode
from eugen_nerf.core.networks.feature_prefix import check_share, feature_prefix


class LayerGraph(nn.Module):
    """Layers and wiring.

    Args:
        layers: by name, in the order they run. Names hold letters, digits and underscores.
        wiring: for each layer, the values it reads: an index below `len(input_widths)` is an input, any other a layer.
        input_widths: width of each input.
        outputs: names of the layers whose values are returned.

    Raises:
        ConfigError: wiring that does not fit the widths.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import DenseLinear, EUGenLinear, LayerGraph
        >>> layers = {"hidden": EUGenLinear(3, 16), "out": DenseLinear(19, 2, "identity")}
        >>> wiring = {"hidden": [0], "out": [0, "hidden"]}  # the last layer reads the input again
        >>> network = LayerGraph(layers, wiring, input_widths=(3,), outputs=["out"])
        >>> (y,) = network(torch.rand(5, 3))
        >>> y.shape
        torch.Size([5, 2])
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
        self.plan: Callable[..., tuple[Tensor, ...]] | None = None
        """What runs in inference mode in place of the collapsed graph (`core/inference/plan.py`,
        `core/inference/quantized.py`); takes inputs and `outputs` as `forward`, or points where it encodes them. It is
        of the present weights: dropped where a layer is replaced or weights are loaded, and not copied."""
        self._share = 1.0
        self._collapsed: CollapsedGraph | None = None
        self._collapsed_key: tuple[object, ...] | None = None
        self._parts: dict[tuple[int, ...], CollapsedGraph] = {}
        for position, name in enumerate(self.names):
            if any(v >= index[name] for v in self.reads[name]):
                raise ConfigError(f"layer {name!r} reads a value that comes after it")
            width = sum(self.width(v) for v in self.reads[name])
            if width != self.layer(name).in_features:
                raise ConfigError(
                    f"layer {name!r} (number {position}) takes {self.layer(name).in_features} inputs, "
                    f"its wiring brings {width}"
                )

    @property
    def evaluation(self) -> Callable[..., tuple[Tensor, ...]] | None:
        """Former name of `plan`."""
        warnings.warn("LayerGraph.evaluation is called LayerGraph.plan now", DeprecationWarning, stacklevel=2)
        return self.plan

    @evaluation.setter
    def evaluation(self, plan: Callable[..., tuple[Tensor, ...]] | None) -> None:
        warnings.warn("LayerGraph.evaluation is called LayerGraph.plan now", DeprecationWarning, stacklevel=2)
        self.plan = plan

    @property
    def share(self) -> float:
        """The share of every hidden layer's features that is evaluated, the first ones (`feature_prefix.py`).

        It is no part of a checkpoint. `values` and the layers themselves do not know of it.
        """
        return self._share

    @share.setter
    def share(self, share: float) -> None:
        check_share(share)
        if share != self._share:
            self._share, self.plan, self._collapsed = share, None, None

    def layer(self, name: str) -> FeatureLayer:
        """The layer called `name`."""
        layer = self.layers[name]
        assert isinstance(layer, FeatureLayer)
        return layer

    def replace_layer(self, name: str, layer: FeatureLayer) -> None:
        """Replaces the layer `name` by another of the same widths.

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
        self.plan = None

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but the plan, since whoever copies a network is about to change it."""
        return {**self.__dict__, "plan": None}

    def _load_from_state_dict(self, *args: Any) -> None:
        self.plan = None
        super()._load_from_state_dict(*args)

    def values(self, *inputs: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        """Every layer's output, layer by layer, nothing merged; `upto` is the last one computed."""
        values: list[Tensor] = list(inputs)
        by_name: dict[str, Tensor] = {}
        for name in self.names:
            by_name[name] = self.layer(name)(self.gather(name, values))
            values.append(by_name[name])
            if name == upto:
                break
        return by_name

    def gather(self, name: str, values: Sequence[Tensor]) -> Tensor:
        """The input of layer `name`: what it reads from `values` (inputs, then layers in order), concatenated."""
        parts = [values[v] for v in self.reads[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def forward(
        self, *inputs: Tensor, outputs: tuple[int, ...] | None = None, mode: EvaluationMode | None = None
    ) -> tuple[Tensor, ...]:
        """Outputs for inputs `[..., d_i]` that share their leading shape.

        Args:
            inputs: all of them, or those that `outputs` depend on (`needed_inputs`).
            outputs: numbers of the outputs that are returned: inference computes nothing else. All by default.
            mode: differentiable or inference; that of PyTorch's gradient switch by default.

        Raises:
            ConfigError: another number of inputs, other widths, or outputs that there are not.
        """
        mode = EvaluationMode.current() if mode is None else mode
        if mode is EvaluationMode.INFERENCE and self.plan is not None:
            return self.plan(*inputs, outputs=outputs) if outputs is not None else self.plan(*inputs)
        widths = [self.input_widths[i] for i in self.needed_inputs(outputs)]
        if [x.shape[-1] for x in inputs] != widths:
            raise ConfigError(f"inputs have widths {[x.shape[-1] for x in inputs]}, expected {widths}")
        if mode is EvaluationMode.INFERENCE:
            return (self.collapsed() if outputs is None else self._part(outputs))(*inputs)
        if outputs is None:
            return self._differentiable(inputs)
        given = dict(zip(self.needed_inputs(outputs), inputs, strict=True))
        shape = inputs[0].shape[:-1]
        filled = [given.get(i, inputs[0].new_zeros(*shape, w)) for i, w in enumerate(self.input_widths)]
        whole = self._differentiable(filled)  # no one trains on a part
        return tuple(whole[i] for i in outputs)

    def _differentiable(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All outputs, by matrices merged for this call, or layer by layer where one uses the norm of its input."""
        if any(self.layer(name).uses_norm for name in self.names):
            # the norm needs each layer's output: forming it is cheaper than a QR factorisation with gradients
            if self.share != 1:
                raise ConfigError("a network that uses the norm of its inputs has no share of its features in training")
            values = list(inputs) + list(self.values(*inputs).values())
            return tuple(values[v] for v in self.outputs)
        return self._merge()(*inputs)

    def collapsed(self) -> CollapsedGraph:
        """The collapsed graph of the present weights, kept until a weight changes.

        Changes through `.data` move no version counter and go unnoticed: call `collapse` after them.
        """
        tensors = [*self.parameters(), *self.buffers()]
        key = tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in tensors)
        if self._collapsed is None or key != self._collapsed_key:
            self._collapsed = self.collapse()
            self._collapsed_key = key
            self._parts = {}
        return self._collapsed

    def needed_inputs(self, outputs: tuple[int, ...] | None) -> tuple[int, ...]:
        """Numbers of the inputs that outputs (numbers too, None for all) depend on, in order.

        Raises:
            ConfigError: no outputs, or one that there is not.
        """
        first = len(self.input_widths)
        if outputs is None:
            return tuple(range(first))
        if not outputs or any(not 0 <= i < len(self.outputs) for i in outputs):
            raise ConfigError(f"outputs {list(outputs)} were requested of a network that has {len(self.outputs)}")
        needed = {self.outputs[i] for i in outputs}
        for value in reversed(range(first, first + len(self.names))):
            if value in needed:
                needed.update(self.reads[self.names[value - first]])
        return tuple(v for v in range(first) if v in needed)

    def _part(self, outputs: tuple[int, ...]) -> CollapsedGraph:
        whole = self.collapsed()  # forgets parts of former weights
        if outputs not in self._parts:
            self._parts[outputs] = whole.pruned(len(self.input_widths), outputs)[0]
        return self._parts[outputs]

    @torch.no_grad()
    def collapse(self) -> CollapsedGraph:
        """Multiplies every affine map into its consumers, in float64, and returns the result in the graph's dtype."""
        with torch.inference_mode(False), torch.no_grad():  # leaving inference mode turns gradients on again
            return self._merge(torch.float64).cast(next(iter(self.parameters())).dtype)

    def multiply_adds(self) -> int:
        """Multiply-adds a query costs at evaluation, collapsed."""
        return self.collapsed().multiply_adds()

    def multiply_adds_by_layer(self) -> dict[str, int]:
        """Multiply-adds of the collapsed network, by the layer whose features they make; they sum to `multiply_adds`.

        What an output costs beyond the features of its layer counts for that layer. Layers that are merged into their
        consumers altogether are not in it.
        """
        with torch.inference_mode(False), torch.no_grad():
            merged, makers = self._merge_named()
        costs: dict[str, int] = {}
        for (stage, _), name in zip(merged.steps, makers, strict=True):
            costs[name] = costs.get(name, 0) + stage.multiply_adds()
        for value, (_, affine) in zip(self.outputs, merged.outputs, strict=True):
            if affine.weight is not None:
                name = self.names[value - len(self.input_widths)]
                costs[name] = costs.get(name, 0) + affine.weight.numel()
        return costs

    def width(self, value: int) -> int:
        """Width of a value: an input, or a layer's output."""
        inputs = len(self.input_widths)
        return self.input_widths[value] if value < inputs else self.layer(self.names[value - inputs]).out_features

    def _merge(self, dtype: torch.dtype | None = None) -> CollapsedGraph:
        """The collapsed graph, differentiable in the layers' parameters; `dtype` casts their tensors first."""
        return self._merge_named(dtype)[0]

    def _merge_named(self, dtype: torch.dtype | None = None) -> tuple[CollapsedGraph, list[str]]:
        """The collapsed graph, and for each of its steps the layer that it makes features of."""
        pieces = {name: self.layer(name).pieces() for name in self.names}
        if dtype is not None:
            pieces = {n: [(cast_stage(s, dtype), cast_affine(a, dtype)) for s, a in p] for n, p in pieces.items()}
        steps: list[Step] = []
        makers: list[str] = []
        inputs = len(self.input_widths)
        # for each value its number among the steps' values, and the affine map deferred to its consumers
        position, deferred = list(range(inputs)), [Affine()] * inputs
        for value, name in enumerate(self.names, start=inputs):
            reads = tuple(position[v] for v in self.reads[name])
            maps = [deferred[v] for v in self.reads[name]]
            widths = [self.width(v) for v in self.reads[name]]
            for number, (stage, affine) in enumerate(pieces[name], start=1):
                merged = stage.merge(maps, widths)
                if number == len(pieces[name]) and len(reads) == 1 and stage.linear and affine.weight is None:
                    maps = [Affine(merged.weight, merged.bias)]  # nothing but a matrix: its consumers may take it over
                    break
                steps.append((merged, reads))
                reads, maps = (inputs + len(steps) - 1,), [affine]
                widths = [stage.num_features if affine.weight is None else affine.weight.shape[0]]
            if not self._pays_to_merge(value, maps[0], pieces):
                steps.append((_as_stage(maps[0]), reads))
                reads, maps = (inputs + len(steps) - 1,), [Affine()]
            position.append(reads[0])
            deferred.append(maps[0])
            makers += [name] * (len(steps) - len(makers))
        graph = CollapsedGraph(tuple(steps), tuple((position[v], deferred[v]) for v in self.outputs))
        return (graph if self.share == 1 else feature_prefix(graph, self.input_widths, self.share)), makers

    def _pays_to_merge(self, value: int, affine: Affine, pieces: Mapping[str, list[tuple[Stage, Affine]]]) -> bool:
        """Whether consuming features by merged matrices costs no more multiply-adds than forming the output once."""
        if affine.weight is None:
            return True
        consumers = [pieces[name][0][0] for name in self.names if value in self.reads[name]]
        if any(stage.groups > 1 for stage in consumers):
            return False
        if value in self.outputs:
            return not consumers
        width, features = affine.weight.shape
        rows = sum(s.weight.shape[0] for s in consumers)
        factors = sum(min(width, features + 1) for s in consumers if s.norm is not None)
        return features * (rows + factors) <= width * (features + rows)


def _as_stage(affine: Affine) -> MergedStage:
    assert affine.weight is not None
    return MergedStage(affine.weight, affine.bias, None, 1, True, "identity")
