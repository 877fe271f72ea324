"""What a study is: cases that can be run one by one, each for several seeds, and what their results are shown by."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eugen_nerf.core.checks.plain_data import from_plain_data
from eugen_nerf.core.errors import ConfigError

Case = dict[str, Any]
"""Plain data: `group` (the table), `variant` (the row), and what else tells it from other cases."""


@dataclass(frozen=True)
class Column:
    """A result that is shown."""

    key: str
    heading: str
    form: str = "{:.3g}"


@dataclass(frozen=True)
class Study:
    """Settings of one experiment."""

    columns: ClassVar[tuple[Column, ...]]
    plot: ClassVar[tuple[str, str]]
    """Keys of what is plotted against what, x first; both on logarithmic axes."""
    spans: ClassVar[tuple[str, ...]]
    """Settings that say which cases there are, and nothing of how one is run."""
    remark: ClassVar[str]
    """What a reader has to know: where it comes from, and what differs from there."""

    def cases(self) -> list[Case]:
        """All that is to be run."""
        raise NotImplementedError

    def run(self, case: Case, seed: int) -> dict[str, float]:
        """Results of one case for one seed: the same on any machine up to rounding, but for times."""
        raise NotImplementedError

    def key(self, case: Case, seed: int) -> str:
        """A name for one result: another one wherever anything differs that it depends on."""
        own = {k: v for k, v in asdict(self).items() if k not in self.spans}
        text = json.dumps([type(self).__name__, own, case, seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def of_settings(cls, settings: Any, where: str = "settings") -> Study:
        """A study with settings of a file, whose errors begin with `where`.

        Raises:
            ConfigError: settings that it does not have, or values that they cannot have.
        """
        return from_plain_data(cls, settings, where)


def train(
    build: Callable[[], nn.Module],
    batches: Callable[[int], tuple[Tensor, Tensor]],
    validate: Callable[[nn.Module], float],
    *,
    steps: int,
    rates: Sequence[float],
) -> tuple[nn.Module, float]:
    """Adam on squared error with each learning rate; the same care for every contender.

    The rate rises linearly over the first 5 % of the steps, as the first steps of Adam are of full size in every
    coordinate, and falls to 2 % of itself along a cosine.

    Args:
        build: makes the model, always the same.
        batches: inputs and targets of a step.
        validate: error on points that are neither trained on nor reported.
        steps: of descent.
        rates: learning rates tried.

    Returns:
        The model whose validation error is least, and its rate.

    Raises:
        ConfigError: every rate diverged.
    """
    best: tuple[float, nn.Module | None, float] = (float("inf"), None, 0.0)
    for rate in rates:
        model = build()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_share(step, steps))
        for step in range(steps):
            x, y = batches(step)
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
            schedule.step()
        error = validate(model)
        if error < best[0]:
            best = (error, copy.deepcopy(model), rate)
    if best[1] is None:
        raise ConfigError(f"training diverged with every learning rate of {', '.join(map(str, rates))}")
    return best[1], best[2]


def _rate_share(step: int, steps: int) -> float:
    rise = min(1.0, (step + 1) / max(1, 0.05 * steps))
    return rise * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
