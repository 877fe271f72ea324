"""A collapsed graph as a module: its tensors are buffers, its wiring is plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.bundle_schema import ADVICE, BundleError, Spec, StoredTensors
from eugen_nerf.core.layers.activations import activation
from eugen_nerf.core.layers.products import PRODUCTS
from eugen_nerf.core.layers.stage import Affine, MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph, Step
from eugen_nerf.core.networks.feature_prefix import feature_prefix

MAX_STEPS = 1024
"""Most steps of a bundled network, and most values that a step reads."""
MAX_DEGREE = 64
"""Highest degree of a stage."""
MAX_WIDTH = 1 << 24
"""Widest input or output."""
MAX_SHARES = 16
"""Shares of its features at which a network can be evaluated, at most."""


class BundledGraph(nn.Module):
    """A collapsed graph whose tensors move with the module that holds it.

    Args:
        graph: its tensors are copied.
        input_widths: width of each input.
        shares: of its features at which it was trained, from all of them (1) downwards; none where with all alone.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import BundledGraph, NeRFShape, build_nerf
        >>> network = build_nerf(NeRFShape(27, trunk_width=16, head_width=0))
        >>> bundled = BundledGraph(network.collapse(), network.input_widths)
        >>> bundled(torch.rand(5, 27))[0].shape, bundled.output_widths
        (torch.Size([5, 1]), (1,))
    """

    def __init__(self, graph: CollapsedGraph, input_widths: Sequence[int], shares: Sequence[float] = ()) -> None:
        super().__init__()
        self.input_widths, self.shares = tuple(input_widths), tuple(shares)
        self.plan: Callable[..., tuple[Tensor, ...]] | None = None
        """What evaluates it without gradients in place of the graph (`core/inference/bundle_plans.py`). It is of the
        present tensors: dropped where they are moved, cast or loaded, and not copied."""
        graph = graph.ungrouped(input_widths)
        self._forms: list[tuple[int, bool, str, str, tuple[int, ...]]] = []
        self._reads = tuple(v for v, _ in graph.outputs)
        for i, (stage, reads) in enumerate(graph.steps):
            self._forms.append((stage.degree, stage.shared, stage.phi, stage.product, tuple(reads)))
            self._store(f"step{i}", weight=stage.weight, bias=stage.bias, norm=stage.norm)
            for s, pair in enumerate(stage.factors):
                self._store(f"step{i}_factor{s}", weight=pair and pair[0], bias=pair and pair[1])
        for i, (_, affine) in enumerate(graph.outputs):
            self._store(f"output{i}", weight=affine.weight, bias=None if affine.weight is None else affine.bias)

    @property
    def graph(self) -> CollapsedGraph:
        """The collapsed graph, its tensors shared with this module."""
        steps: list[Step] = []
        for i, (degree, shared, phi, product, reads) in enumerate(self._forms):
            weight = self._tensor(f"step{i}_weight")
            assert weight is not None
            norm, factors = self._tensor(f"step{i}_norm"), ()
            if norm is not None:
                factors = tuple(self._factor(f"step{i}_factor{s}") for s in range(len(reads)))  # type: ignore[assignment]
            bias = self._tensor(f"step{i}_bias")
            stage = MergedStage(weight, bias, norm, degree, shared, phi, product=product, factors=factors)
            steps.append((stage, reads))
        maps = (
            Affine(self._tensor(f"output{i}_weight"), self._tensor(f"output{i}_bias")) for i in range(self.num_outputs)
        )
        return CollapsedGraph(tuple(steps), tuple(zip(self._reads, maps, strict=True)))

    def at_share(self, share: float) -> BundledGraph:
        """The network of the first features alone (`feature_prefix.py`), a copy; itself where it has no `shares`.

        Args:
            share: one of `shares`.
        """
        if not self.shares:
            return self
        return BundledGraph(feature_prefix(self.graph, self.input_widths, share), self.input_widths)

    @property
    def num_outputs(self) -> int:
        """Number of outputs."""
        return len(self._reads)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of all its tensors."""
        return next(self.buffers()).dtype

    @property
    def output_widths(self) -> tuple[int, ...]:
        """Width of each output."""
        graph = self.graph
        widths = [*self.input_widths, *(stage.num_features for stage, _ in graph.steps)]
        return tuple(widths[v] if a.weight is None else a.weight.shape[0] for v, a in graph.outputs)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs `[..., width]` in the network's dtype for inputs `[..., d_i]` of any floating point dtype."""
        if self.plan is not None and not any(x.requires_grad for x in inputs):
            return self.plan(*inputs)
        return self.graph(*(x.to(self.dtype) for x in inputs))

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but the plan."""
        return {**self.__dict__, "plan": None}

    def _apply(self, *args: Any, **kwargs: Any) -> BundledGraph:
        self.plan = None
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.plan = None
        super()._load_from_state_dict(*args)

    def describe(self) -> dict[str, Any]:
        """Wiring and forms as JSON values; with the tensors, `build` makes the network again."""
        graph, steps = self.graph, []
        for stage, reads in graph.steps:
            steps.append(
                {
                    "reads": list(reads),
                    "rows": stage.weight.shape[0],
                    "degree": stage.degree,
                    "shared": stage.shared,
                    "phi": stage.phi,
                    "bias": stage.bias is not None,
                    "norm": stage.norm is not None,
                    "factors": [None if f is None else f[0].shape[0] for f in stage.factors],
                    # left out where plain, so that earlier versions read all that they can evaluate
                    **({} if stage.product == "plain" else {"product": stage.product}),
                }
            )
        outputs = [
            {"reads": v, "rows": None if a.weight is None else a.weight.shape[0], "bias": a.bias is not None}
            for v, a in graph.outputs
        ]
        # left out where there are none: earlier versions read such networks too
        shares = {"shares": list(self.shares)} if self.shares else {}
        return {"inputs": list(self.input_widths), "steps": steps, "outputs": outputs, **shares}

    @classmethod
    def build(
        cls, spec: Spec, tensors: StoredTensors, prefix: str, inputs: Sequence[int], outputs: Sequence[int]
    ) -> BundledGraph:
        """The network that `spec` describes.

        Args:
            spec: as `describe` writes it.
            tensors: of the bundle.
            prefix: of the names of its tensors.
            inputs: widths of the encodings.
            outputs: required widths of the outputs.

        Raises:
            BundleError: another number of inputs or outputs, widths that do not fit, a step that reads what comes
                after it, an unknown activation, shares in another order, tensors that are missing, of another shape or
                of several dtypes.
        """
        declared = spec.integers("inputs", 1, MAX_WIDTH, 16)
        if declared != tuple(inputs):
            raise BundleError(
                f"{spec.where} takes inputs of widths {list(declared)}, its encodings bring {list(inputs)}; {ADVICE}"
            )
        widths, steps = list(declared), []
        for i, part in enumerate(spec.parts("steps", MAX_STEPS)):
            steps.append(_read_step(part, tensors, f"{prefix}step{i}", widths))
            widths.append(steps[-1][0].num_features)
        maps = [
            _read_output(part, tensors, f"{prefix}output{i}", widths)
            for i, part in enumerate(spec.parts("outputs", 16))
        ]
        shares = _read_shares(spec) if spec.holds("shares") else ()
        spec.close()
        network = cls(CollapsedGraph(tuple(steps), tuple(maps)), declared, shares)
        if network.output_widths != tuple(outputs):
            made = list(network.output_widths)
            raise BundleError(f"{spec.where} has outputs of widths {made}, its kind needs {list(outputs)}; {ADVICE}")
        dtypes = sorted({str(b.dtype).removeprefix("torch.") for b in network.buffers()})
        if len(dtypes) > 1:
            raise BundleError(f"{spec.where} mixes {' and '.join(dtypes)}; a network has one dtype; {ADVICE}")
        return network

    def _store(self, name: str, **tensors: Tensor | None) -> None:
        # contiguous, as files hold them: matrix products of other layouts round differently
        layout = torch.contiguous_format
        for kind, tensor in tensors.items():
            self.register_buffer(
                f"{name}_{kind}", None if tensor is None else tensor.detach().clone(memory_format=layout)
            )

    def _tensor(self, name: str) -> Tensor | None:
        tensor: Tensor | None = getattr(self, name)
        return tensor

    def _factor(self, name: str) -> tuple[Tensor, Tensor] | None:
        weight, bias = self._tensor(f"{name}_weight"), self._tensor(f"{name}_bias")
        return None if weight is None or bias is None else (weight, bias)


def _read_shares(spec: Spec) -> tuple[float, ...]:
    shares = spec.number_list("shares", 1e-6, 1.0, 2, MAX_SHARES)
    if shares[0] != 1 or any(first <= second for first, second in pairwise(shares)):
        raise BundleError(f"{spec.where}.shares are {list(shares)}; they go from 1 downwards; {ADVICE}")
    return shares


def _read_step(spec: Spec, tensors: StoredTensors, name: str, widths: list[int]) -> Step:
    reads = spec.integers("reads", 0, len(widths) - 1, MAX_STEPS)
    rows, degree = spec.integer("rows", 1, MAX_WIDTH), spec.integer("degree", 1, MAX_DEGREE)
    shared, phi = spec.flag("shared"), spec.checked_text("phi", activation)
    product = spec.text("product", PRODUCTS) if "product" in spec.names() else "plain"
    if product != "plain" and degree != 2:
        raise BundleError(f"{spec.where} has the product {product} in degree {degree}, it is of degree 2; {ADVICE}")
    blocks = degree if shared else degree * (degree + 1) // 2
    if rows % blocks:
        raise BundleError(f"{spec.where} has {rows} rows for {blocks} equal projections; {ADVICE}")
    weight = tensors.take(f"{name}_weight", (rows, sum(widths[v] for v in reads)))
    bias = tensors.take(f"{name}_bias", (rows,)) if spec.flag("bias") else None
    norm = tensors.take(f"{name}_norm", (rows,)) if spec.flag("norm") else None
    factors: list[tuple[Tensor, Tensor] | None] = []
    for s, count in enumerate(spec.optional_integers("factors", 1, MAX_WIDTH, 0 if norm is None else len(reads))):
        if count is None:
            factors.append(None)
        else:
            r = tensors.take(f"{name}_factor{s}_weight", (count, widths[reads[s]]))
            factors.append((r, tensors.take(f"{name}_factor{s}_bias", (count,))))
    spec.close()
    return MergedStage(weight, bias, norm, degree, shared, phi, product=product, factors=tuple(factors)), reads


def _read_output(spec: Spec, tensors: StoredTensors, name: str, widths: list[int]) -> tuple[int, Affine]:
    value = spec.integer("reads", 0, len(widths) - 1)
    rows, has_bias = spec.optional_integer("rows", 1, MAX_WIDTH), spec.flag("bias")
    spec.close()
    if rows is None:
        if has_bias:
            raise BundleError(f"{spec.where} has a bias without a matrix; {ADVICE}")
        return value, Affine()
    weight = tensors.take(f"{name}_weight", (rows, widths[value]))
    return value, Affine(weight, tensors.take(f"{name}_bias", (rows,)) if has_bias else None)
