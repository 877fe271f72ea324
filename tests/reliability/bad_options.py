"""The options of every command, and values that each of them refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from eugen_nerf.cli import data, sdf
from eugen_nerf.cli.bench import Bench
from eugen_nerf.cli.distill import Distill
from eugen_nerf.cli.eval import EvalCommand
from eugen_nerf.cli.render import RenderCommand
from eugen_nerf.cli.roofline import RooflineCommand
from eugen_nerf.cli.speed import SpeedCommand
from eugen_nerf.cli.view import ViewCommand
from eugen_nerf.cli.web import WebCommand
from eugen_nerf.core.ranges import Range

DATA = {"fetch": [], "check": ["x"], "photos": ["x", "--output", "y"]}
COMMANDS: dict[str, tuple[type, list[str]]] = {
    "eugen-bench": (Bench, ["x.yml"]),
    "eugen-distill": (Distill, ["--load-config", "x"]),
    "eugen-eval": (EvalCommand, ["--load-config", "x"]),
    "eugen-render": (RenderCommand, ["--load-config", "x", "--output", "x.gif"]),
    "eugen-roofline": (RooflineCommand, []),
    "eugen-speed": (SpeedCommand, []),
    "eugen-view": (ViewCommand, ["--load-config", "x"]),
    "eugen-web": (WebCommand, ["x", "--output", "x.html"]),
    **{f"eugen-data {word}": (kind, DATA.get(word, ["--output", "x"])) for word, kind in data.COMMANDS.items()},
    **{f"eugen-sdf {word}": (kind, ["--load-config", "x"]) for word, kind in sdf.COMMANDS.items()},
}
HUGE = "1" + "0" * 400


def hint_of(kind: type, setting: str) -> Any:
    """The annotation of a setting, nested ones as `outer.inner`."""
    outer, _, inner = setting.partition(".")
    hint = get_type_hints(kind, include_extras=True)[outer]
    return hint_of(hint, inner) if inner else hint


def option_of(hint: Any, setting: str) -> str:
    """The option of a setting, which may have a name of its own."""
    names = (getattr(each, "name", None) for each in getattr(hint, "__metadata__", ()))
    return "--" + next((n for n in names if isinstance(n, str)), setting.rpartition(".")[2]).replace("_", "-")


def count_of(hint: Any) -> int:
    """Numbers that an option takes."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    counts = [len(get_args(k)) for k in (hint, *get_args(hint)) if get_origin(k) is tuple and ... not in get_args(k)]
    return max(counts, default=1)


def bad_values(allowed: Range) -> Iterator[str]:
    """Texts that are no numbers of a range."""
    yield from ("nan", "inf", "-inf", HUGE, f"-{HUGE}", "1e999", "x", "")
    if math.isfinite(allowed.low):
        yield from (f"{math.floor(allowed.low) - 1}", "-1" if allowed.low >= 0 else f"{10 * allowed.low - 1}")
        if allowed.above:
            yield f"{allowed.low:g}"
    if math.isfinite(allowed.high):
        yield from (f"{math.ceil(allowed.high) + 1}", f"{int(allowed.high) * 1000 + 7}")
        if allowed.below:
            yield f"{allowed.high:g}"
