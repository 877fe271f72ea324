"""Conversion of any PyTorch model in place: its hidden linear layers become narrower ones, in closed form.

An EUGen layer of degree 1 whose Phi is the teacher's activation f, followed by linear layers, collapses to
`Linear(d, m) -> f -> Linear(m, o)` (App. B.1, Eq. 29): its G is the first layer, its A (Eq. 31) is multiplied into the
second. So f can stay where it is, a module or a line of code, and all that is left are plain `nn.Linear` layers of
other sizes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.allocation import Allocation, within_budget
from eugen_nerf.core.fitting.convert_graph import LayerReport, before_after, cost_rows
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig
from eugen_nerf.core.modules.linears import linear_costs
from eugen_nerf.core.modules.model_calls import Inputs, batches_of, call_model, plainly
from eugen_nerf.core.modules.module_conversion import ModuleConversion
from eugen_nerf.core.spec import count_parameters


@dataclass(frozen=True)
class ModuleReport:
    """The result of a model's conversion; its text is a table.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import convert_
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
        >>> report = convert_(model, [torch.rand(64, 4) for _ in range(5)], num_features=8)
        >>> report.linears, report.multiply_adds
        ({'0': (4, 8, True), '2': (8, 2, True)}, (192, 48))
        >>> print(report)
        layer  features  check error  multiply-adds
        ...
    """

    layers: tuple[LayerReport, ...]
    """In the order of conversion; parameters and multiply-adds are those of the layer and of its consumers together."""
    skipped: dict[str, str]
    """Modules that matched and stayed as they were, with the reason."""
    linears: dict[str, tuple[int, int, bool]]
    """The sizes of every layer that was replaced: inputs, outputs, whether it has a bias."""
    parameters: tuple[int, int]
    """Of the whole model, before and after."""
    multiply_adds: tuple[int, int]
    """Of one row through every linear layer of the model, before and after."""
    seconds: float
    front: tuple[Allocation, ...] = ()
    """Where a budget was given: the undominated numbers of units that were previewed, cheapest first, with the
    multiply-adds of the whole model and the predicted error (see `ModulePreview`)."""
    shares: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Multiply-adds by linear layer, before and after; they sum to `multiply_adds`."""

    def __str__(self) -> str:
        """A table, and what was skipped."""
        rows = cost_rows(self.layers, self.shares)
        width = max([5, *(len(row.name) for row in rows)])
        lines = [f"{'layer':{width}}  features  check error  multiply-adds"]
        for row in rows:
            before, after = row.multiply_adds
            fit = f"{row.report.num_features:8d}  {row.report.relative_error:11.2e}" if row.report else f"{'':21}"
            lines.append(f"{row.name:{width}}  {fit}  {before:,} -> {after:,}")
        lines.append(f"{'all':{width}}  {'':21}  {self.multiply_adds[0]:,} -> {self.multiply_adds[1]:,}")
        lines.append(f"parameters {self.parameters[0]:,} -> {self.parameters[1]:,}, {self.seconds:.1f} s")
        lines += [f"{name} {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def convert_(
    model: nn.Module,
    inputs: Inputs,
    config: ConversionConfig | None = None,
    *,
    layers: Sequence[str] = (),
    exclude: Sequence[str] = (),
    num_features: int | float | Sequence[int] | Mapping[str, int] | None = None,
    macs: float | None = None,
    output_aware: bool = False,
    call: Callable[[nn.Module, Any], Any] | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> ModuleReport:
    """Makes hidden linear layers of a trained model narrower, in place, from batches of its inputs alone.

    A hidden layer is an `nn.Linear` (or GPT-2's `Conv1D`) whose output goes, unit by unit, through one function (ReLU,
    leaky ReLU, ELU, GELU, SiLU, softplus, tanh, sigmoid, Gaussian, sine of any frequency) into other linear layers and
    nowhere else. The function need not be a module. Layers are fitted one after another on what their converted
    predecessors put out, against the teacher's values, and get a bias where they had none. The model runs in evaluation
    mode and keeps its dtype, device and mode. Modules stay where they are with new parameters: what those were
    registered with (an optimizer) has to be made anew. A model that `torch.compile` was used on is compiled anew.

    Args:
        model: changed in place; left as it was where anything is raised.
        inputs: batches, or a function that returns them, as they are gone through several times in the same order. A
            tuple or list is the arguments of a call, a mapping its keyword arguments, anything else its one argument;
            a `Weighted` holds one of these. They are made while the model is as it was. With 5 or more, every
            fifth is held out to choose the ridge term and to measure the error; else a fifth of each batch's rows.
        config: the recipe; G made of the teacher's rows by default. Degree 1 and no norm are all that collapses.
        layers: regular expressions on full module names, each to match a name whole; all hidden layers where empty.
        exclude: the same, of layers to leave alone.
        num_features: m; one number, a fraction of each layer's width (a float in (0, 1]), one number a layer in the
            order of execution, or numbers by name (then `layers` can be left out). Half of each where None.
        macs: a budget in its place: the share of the multiply-adds of all linear layers that may be left, in (0, 1).
            One more pass over the batches measures what each layer would lose with fewer units; they are allocated so
            that the predicted losses are least together. `output_aware` decides what counts as a loss.
        output_aware: choose neurons by what the model's outputs make of them, for which each batch goes once forward
            and back through the model; by the matrices of the layers that read them otherwise. An error of an output
            counts by its size: raw densities of a radiance field outweigh its colours, and an image can lose 4 to 5
            dB by that (`scripts/convert_field.py` prints it). Give `rendered_call` there.
        call: `call(model, batch)` runs the model where it is not simply called. All that it returns counts alike.
        progress: called with each layer that is done.

    Returns:
        What was done; its text is a table.

    Raises:
        ConfigError: patterns that match nothing (the message lists what there is) or only layers that cannot be
            converted (with the reason for each); numbers that make no sense; a model whose outputs differ from
            call to call; too few samples.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import convert_
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
        >>> report = convert_(model, [torch.rand(64, 4) for _ in range(5)], num_features=8)
        >>> model[0], model[2]
        (Linear(in_features=4, out_features=8, bias=True), Linear(in_features=8, out_features=2, bias=True))
    """
    start = time.perf_counter()
    if macs is not None and num_features is not None:
        raise ConfigError("macs chooses the numbers of features: give one of the two")
    if macs is not None and not 0 < macs < 1:
        raise ConfigError(f"macs is a share of the multiply-adds, between 0 and 1, got {macs:g}")
    wanted = tuple(layers) or (tuple(map(re.escape, num_features)) if isinstance(num_features, Mapping) else ())
    with plainly(model) as plain:
        work = ModuleConversion(
            plain, batches_of(inputs), call or call_model, config or ConversionConfig(), layers=wanted, exclude=exclude
        )
        if macs is None:
            counts = unit_counts(work.widths, 0.5 if num_features is None else num_features)
        parameters, costs = count_parameters(plain), linear_costs(plain)
        total = sum(costs.values())
        metrics: Mapping[str, Tensor] = work.metrics() if output_aware else {}
        front: list[Allocation] = []
        if macs is not None:
            preview = work.preview(metrics)
            rest = total - preview.multiply_adds
            front = [replace(point, multiply_adds=point.multiply_adds + rest) for point in preview.front]
            widths, chosen = work.widths, within_budget(front, macs * total).num_features
            counts = {name: m for name, m in chosen.items() if m < widths[name]}
        new, reports = work.convert(counts, metrics, progress)
        work.linears.install(new)  # everything went well: only now is the model changed
    sizes = {n: (m.in_features, m.out_features, m.bias is not None) for n, m in new.items()}
    shares = before_after(costs, linear_costs(plain))
    return ModuleReport(
        layers=tuple(reports),
        skipped=work.skipped,
        linears=sizes,
        parameters=(parameters, count_parameters(plain)),
        multiply_adds=(total, sum(after for _, after in shares.values())),
        seconds=time.perf_counter() - start,
        front=tuple(front),
        shares=shares,
    )


def unit_counts(
    widths: Mapping[str, int], num_features: int | float | Sequence[int] | Mapping[str, int]
) -> dict[str, int]:
    """m of each layer.

    Args:
        widths: of the layers, in order.
        num_features: as `convert_` takes it.

    Raises:
        ConfigError: numbers that make no sense.
    """
    names = [*widths]
    if isinstance(num_features, Mapping):
        if set(num_features) != set(names):
            raise ConfigError(f"numbers of features for {', '.join(num_features)}, and to convert: {', '.join(names)}")
        return {name: int(num_features[name]) for name in names}
    if isinstance(num_features, float):
        if not 0 < num_features <= 1:
            raise ConfigError(f"a fraction of the features must be in (0, 1], got {num_features:g}")
        return {name: max(1, round(num_features * width)) for name, width in widths.items()}
    counts = (num_features,) if isinstance(num_features, int) else tuple(num_features)
    if len(counts) not in (1, len(names)):
        raise ConfigError(
            f"{len(counts)} numbers of features for {len(names)} layers ({', '.join(names)}); give 1 or each"
        )
    return dict(zip(names, counts * len(names) if len(counts) == 1 else counts, strict=True))
