"""Conversion of any PyTorch model in place: its hidden linear layers become narrower ones, in closed form.

An EUGen layer of degree 1 whose Phi is the teacher's activation f, followed by linear layers, collapses to
`Linear(d, m) -> f -> Linear(m, o)` (App. B.1, Eq. 29): its G is the first layer, its A (Eq. 31) is multiplied into the
second. So f can stay where it is, a module or a line of code, and all that is left are plain `nn.Linear` layers of
other sizes.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.convert import LayerReport
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fit import ConversionConfig
from eugen_nerf.core.hidden import HiddenLayer, Linears, check_repeatable, find_hidden, tensors_in, why_not
from eugen_nerf.core.narrowing import Narrowing, Weighted
from eugen_nerf.core.nerf import match_names
from eugen_nerf.core.pairs import HOLD_OUT_EVERY
from eugen_nerf.core.sensitivity import output_metrics
from eugen_nerf.core.spec import count_parameters


class NothingToConvert(ConfigError):
    """None of the modules that were asked for is a hidden layer; the message holds the reason for each."""


Inputs = Iterable[Any] | Callable[[], Iterable[Any]]


@dataclass(frozen=True)
class ModuleReport:
    """What became of a model."""

    layers: tuple[LayerReport, ...]
    """In the order of conversion; parameters and multiply-adds are those of the layer and of its readers together."""
    skipped: dict[str, str]
    """Modules that matched and stayed as they were, with the reason."""
    linears: dict[str, tuple[int, int, bool]]
    """The sizes of every layer that was replaced: inputs, outputs, whether it has a bias."""
    parameters: tuple[int, int]
    """Of the whole model, before and after."""
    multiply_adds: tuple[int, int]
    """Of one row through every linear layer of the model, before and after."""
    seconds: float

    def __str__(self) -> str:
        """A table, and what was skipped."""
        width = max([5, *(len(layer.name) for layer in self.layers)])
        lines = [f"{'layer':{width}}  features  check error  multiply-adds"]
        for layer in self.layers:
            before, after = layer.multiply_adds
            lines.append(
                f"{layer.name:{width}}  {layer.num_features:8d}  {layer.relative_error:11.2e}  {before:,} -> {after:,}"
            )
        lines.append(f"parameters {self.parameters[0]:,} -> {self.parameters[1]:,}, {self.seconds:.1f} s")
        lines += [f"{name} {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


@torch.no_grad()
def convert_(
    model: nn.Module,
    inputs: Inputs,
    config: ConversionConfig | None = None,
    *,
    layers: Sequence[str] = (),
    exclude: Sequence[str] = (),
    num_features: int | float | Sequence[int] | Mapping[str, int] = 0.5,
    output_aware: bool = False,
    call: Callable[[nn.Module, Any], Any] | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> ModuleReport:
    """Makes hidden linear layers of a trained model narrower, in place, from batches of its inputs alone.

    A hidden layer is an `nn.Linear` whose output goes, unit by unit, through one function (ReLU, leaky ReLU, ELU, GELU,
    SiLU, softplus, tanh, sigmoid, Gaussian, sine of any frequency) into other `nn.Linear` layers and nowhere else. The
    function need not be a module. Layers are fitted one after another on what their converted predecessors put out,
    against the teacher's values, and get a bias where they had none. The model runs in evaluation mode and keeps its
    dtype, device and mode. What its layers' parameters were registered with (an optimizer) has to be made anew.

    Args:
        model: changed in place; left as it was where anything is raised.
        inputs: batches, or a function that returns them, as they are gone through several times in the same order. A
            tuple or list is the arguments of a call, a mapping its keyword arguments, anything else its one argument;
            a `Weighted` holds one of these. They are asked for while the model is as it was. With 5 or more, every
            fifth is held out to choose the ridge term and to tell the error; else the last fifth of the rows of each.
        config: the recipe; G made of the teacher's rows by default. Degree 1 and no norm are all that collapses.
        layers: regular expressions on full module names, each to match a name whole; all hidden layers where empty.
        exclude: the same, of layers to leave alone.
        num_features: m; one number, a fraction of each layer's width (a float in (0, 1]), one number a layer in the
            order of execution, or numbers by name (then `layers` can be left out).
        output_aware: choose neurons by what the model's outputs make of them, for which each batch goes once forward
            and back through the model; by the matrices of the layers that read them otherwise.
        call: `call(model, batch)` runs the model where it is not simply called.
        progress: called with each layer that is done.

    Returns:
        What was done; its text is a table.

    Raises:
        ConfigError: patterns that match nothing (the message lists what there is) or only layers that cannot be
            converted (with the reason for each); numbers that make no sense; a model that answers differently each
            time; too few samples.
    """
    start = time.perf_counter()
    config = config or ConversionConfig()
    if config.recipe not in ("rows", "pruned", "random"):
        raise ConfigError(f"recipe {config.recipe!r} puts a layer more into the model; choose rows, pruned or random")
    if config.recipe == "random" and (config.eugen.degree != 1 or config.eugen.norm):
        raise ConfigError(
            f"degree {config.eugen.degree} and norm {config.eugen.norm} do not collapse into plain linear layers: "
            "take EUGenConfig(degree=1, norm=False), or convert a LayerGraph with convert_graph"
        )
    source = _batches(inputs)
    ask = call or _call
    with _evaluating(model):
        beginning = list(itertools.islice(source(), HOLD_OUT_EVERY))
        if not beginning:
            raise ConfigError("there are no batches to learn from")
        first = beginning[0].batch if isinstance(beginning[0], Weighted) else beginning[0]
        linears = Linears(model)
        run = partial(ask, model, first)
        check_repeatable(run)
        found, refused = find_hidden(linears, run)
        wanted = tuple(layers) or (tuple(map(re.escape, num_features)) if isinstance(num_features, Mapping) else ())
        plan, skipped = _plan(linears, found, refused, wanted, exclude, run)
        counts = _counts(plan, linears, num_features)
        work = Narrowing(linears, source, ask, len(beginning) >= HOLD_OUT_EVERY, config)
        before = count_parameters(model), _multiply_adds(model)
        reports = []
        metrics: Mapping[str, Tensor] = {}
        if output_aware:
            asked = (item.batch if isinstance(item, Weighted) else item for item in source())
            runs = (lambda batch=batch: tensors_in(ask(model, batch), detached=False) for batch in asked)
            metrics = output_metrics(linears, plan, runs)
        for index, layer in enumerate(plan):
            seed = config.eugen.seed + index
            reports.append(work.convert(layer, counts[layer.name], seed, metrics.get(layer.name)))
            progress(layer.name)
    # everything went well: only now is the model changed
    linears.install({name: linear.train(linears.modules[name].training) for name, linear in work.new.items()})
    sizes = {n: (m.in_features, m.out_features, m.bias is not None) for n, m in work.new.items()}
    after = count_parameters(model), _multiply_adds(model)
    seconds = time.perf_counter() - start
    return ModuleReport(tuple(reports), skipped, sizes, (before[0], after[0]), (before[1], after[1]), seconds)


def _plan(
    linears: Linears,
    found: Mapping[str, HiddenLayer],
    refused: Mapping[str, str],
    layers: Sequence[str],
    exclude: Sequence[str],
    run: Callable[[], Any],
) -> tuple[list[HiddenLayer], dict[str, str]]:
    """The layers to convert, in order, and why others that were asked for are not."""
    everything = [*linears.modules, *(name for name in linears.refused if name not in linears.modules)]
    if not everything:
        raise ConfigError("the model has no nn.Linear that could be converted")
    unwanted = set(match_names(exclude, everything)) if exclude else set()
    hits = [n for n in (match_names(layers, everything) if layers else everything) if n not in unwanted]
    reasons = dict(refused)
    plan = []
    for name, layer in found.items():
        if name not in hits:
            continue
        if reason := why_not(linears, layer, run):
            reasons[name] = reason
        else:
            plan.append(layer)
    chosen = {layer.name for layer in plan}
    skipped = {name: reasons[name] for name in hits if name not in chosen}
    if not plan:
        why = "; ".join(f"{name} {reason}" for name, reason in skipped.items()) or "all of them are excluded"
        others = [name for name in found if name not in hits]
        hint = f". Hidden layers are: {', '.join(others)}" if others else ""
        raise NothingToConvert(f"no layer to convert: {why}{hint}")
    return plan, skipped


def _counts(plan: Sequence[HiddenLayer], linears: Linears, num_features: Any) -> dict[str, int]:
    """m of each layer."""
    names = [layer.name for layer in plan]
    if isinstance(num_features, Mapping):
        if set(num_features) != set(names):
            raise ConfigError(f"numbers of features for {', '.join(num_features)}, and to convert: {', '.join(names)}")
        return {name: int(num_features[name]) for name in names}
    if isinstance(num_features, float):
        if not 0 < num_features <= 1:
            raise ConfigError(f"a fraction of the features must be in (0, 1], got {num_features:g}")
        return {name: max(1, round(num_features * linears.modules[name].out_features)) for name in names}
    counts = (num_features,) if isinstance(num_features, int) else tuple(num_features)
    if len(counts) not in (1, len(names)):
        raise ConfigError(
            f"{len(counts)} numbers of features for {len(names)} layers ({', '.join(names)}); give 1 or each"
        )
    return dict(zip(names, counts * len(names) if len(counts) == 1 else counts, strict=True))


def _batches(inputs: Inputs) -> Callable[[], Iterable[Any]]:
    if isinstance(inputs, Tensor | Mapping) or not (callable(inputs) or isinstance(inputs, Iterable)):
        raise ConfigError("inputs are batches: a list of tensors, a DataLoader, or a function that returns batches")
    if isinstance(inputs, Iterator):
        raise ConfigError("batches are gone through several times: give a list, a DataLoader, or a function")
    return inputs if callable(inputs) and not isinstance(inputs, Iterable) else lambda: iter(inputs)


def _call(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, with every module's own mode restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _multiply_adds(model: nn.Module) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
