"""The file of a suite: what is allowed in it, and the suite that it describes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from eugen_nerf.core.checks.names import NAME, shown
from eugen_nerf.core.checks.plain_data import MOST, from_plain_data
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import SEED, THREADS, Range
from eugen_nerf.evaluation.statistics.published import check_published
from eugen_nerf.methods.runs.strict_yaml import YamlFileError, plain_yaml
from eugen_nerf.web.page import MOST_FIELDS

EVALUATORS = {"images": ("eugen-eval",), "sdf": ("eugen-sdf", "evaluate")}
Name = Annotated[str, NAME]
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Suite:
    """What to run; the keys of the YAML file."""

    name: str
    """Title of the suite."""
    output: Path
    """Folder for data (where generated), runs, logs and the report."""
    runs: Mapping[Name, Sequence[str]]
    """Arguments of `ns-train` by name of the run; the first is what the others are compared with."""
    method: Name = ""
    """nerfstudio method of the trained runs."""
    methods: Mapping[Name, Sequence[str]] = field(default_factory=dict)
    """Instead of one method, several: further arguments of `ns-train` by method."""
    data: Path | None = None
    """A data set that `dataparser` reads; None generates a scene."""
    scenes: Mapping[Name, Path] = field(default_factory=dict)
    """Instead of one data set, several by name. With scenes or methods, each pair has a report of its own, and one more
    has the means over the scenes."""
    scene: Sequence[str] = ()
    """Arguments of `eugen-data`'s generator, where a scene is generated."""
    generator: Literal["scene", "dynamic", "room"] = "scene"
    """Subcommand of `eugen-data` that generates it, such as scene or dynamic."""
    settings: Mapping[Name, Sequence[str]] = field(default_factory=dict)
    """Every run is trained with each, as NAME-SETTING: further arguments of `ns-train` by name, such as rates."""
    seeds: Sequence[Annotated[int, SEED]] = ()
    """Every run is trained once for each, as NAME-s0, NAME-s1, ...; empty trains each once, under its own name."""
    seed_args: Sequence[str] = ("--machine.seed={seed}",)
    """Arguments of `ns-train` that set a seed."""
    train: Sequence[str] = ()
    """Arguments of `ns-train` common to all runs."""
    dataparser: Sequence[str] = ("blender-data",)
    """The dataparser's sub-command and arguments."""
    distilled: Mapping[Name, Sequence[str]] = field(default_factory=dict)
    """Arguments of `eugen-distill` by name; the first is the name of the teacher's run. With seeds, a teacher's name as
    in `runs` stands for its run of every seed (NAME-s0, ...), and `{seed}` in the other arguments for the seed; a run
    of one seed is named in full."""
    evaluator: Literal["images", "sdf"] = "images"
    """What compares the runs: images (`eugen-eval`) or sdf (`eugen-sdf evaluate`)."""
    evaluate: Sequence[str] = ()
    """Its arguments."""
    page: Sequence[Name] = ()
    """One or two runs, trained or distilled, that a web page shows at the end (`eugen-web`)."""
    workers: Annotated[int, Range(1, 1024)] = 2
    """Trainings and conversions side by side."""
    threads: Annotated[int | None, THREADS] = 1
    """Processor threads of every step, whatever the number of workers, because sums depend on it: results are the same
    for any number of workers. None leaves it to torch."""
    published: Sequence[Mapping[str, str]] = ()
    """Published results to print beside ours: `text`, `source`, and perhaps `beside` (the name of a run of ours) and
    `differs` (what makes them hard to compare)."""


def read_suite(path: Path) -> Suite:
    """Reads a suite.

    Raises:
        ConfigError: no such file, no YAML, keys that are missing or unknown, values that a key cannot have, or runs
            that do not fit together.
    """
    where = f"{path} is no suite"
    try:
        suite = from_plain_data(Suite, plain_yaml(path), where)
    except YamlFileError as error:
        raise ConfigError(f"{where}: {error}") from error
    check_published(suite.published, str(path))
    if not suite.name.strip():
        raise ConfigError(f"{path}: name is {shown(suite.name)}; a suite needs a title")
    empty = [name for name, words in suite.distilled.items() if not words]
    if empty:
        raise ConfigError(f"{path}: distilled.{empty[0]} is empty; it begins with the name of its teacher's run")
    if not suite.runs:
        raise ConfigError(f"{path}: runs is empty; give at least one run")
    if bool(suite.method) == bool(suite.methods):
        raise ConfigError(f"{path}: give either method or methods")
    if suite.scenes and suite.data is not None:
        raise ConfigError(f"{path}: give either data or scenes")
    suite = _expanded(suite, str(path))
    without_teacher = [name for name, (teacher, *_) in suite.distilled.items() if teacher not in suite.runs]
    if without_teacher:
        raise ConfigError(f"{path}: {without_teacher[0]!r} has no teacher among the runs {', '.join(suite.runs)}")
    known = [*suite.runs, *suite.distilled]
    if strangers := [name for name in suite.page if name not in known]:
        raise ConfigError(f"{path}: page names {strangers[0]!r}, which is none of the runs {', '.join(known)}")
    if len(suite.page) > MOST_FIELDS:
        raise ConfigError(f"{path}: page names {len(suite.page)} runs of at most {MOST_FIELDS}")
    return suite


def _expanded(suite: Suite, where: str) -> Suite:
    """A run for every setting and seed, a conversion for every seed; raises `ConfigError` where names meet."""
    if len(set(suite.seeds)) < len(suite.seeds):
        raise ConfigError(f"{where}: a seed stands twice among the seeds {', '.join(map(str, suite.seeds))}")
    if suite.seeds and not any("{seed}" in each for each in suite.seed_args):
        raise ConfigError(f"{where}: seed_args is {shown(suite.seed_args)}; {{seed}} must stand in one of them")
    count = len(suite.runs) * max(1, len(suite.settings)) * max(1, len(suite.seeds))
    if count > MOST:
        raise ConfigError(f"{where}: it has {count} runs of at most {MOST}")
    runs = (
        {**suite.runs}
        if not suite.settings
        else {
            f"{name}-{setting}": [*args, *more]
            for name, args in suite.runs.items()
            for setting, more in suite.settings.items()
        }
    )
    if len(runs) < len(suite.runs) * max(1, len(suite.settings)):
        raise ConfigError(f"{where}: two runs have one name once each stands with every setting: rename one")
    distilled = _distilled_with_seeds(replace(suite, runs=runs), where)
    if suite.seeds:
        runs = {
            f"{name}-s{seed}": [*args, *(_with_seed(argument, seed, where) for argument in suite.seed_args)]
            for seed in suite.seeds
            for name, args in runs.items()
        }
    if twice := [name for name in distilled if name in runs]:
        raise ConfigError(f"{where}: {twice[0]!r} stands among the runs and among the distilled ones: rename one")
    return replace(suite, runs=runs, settings={}, distilled=distilled, seeds=())


def _with_seed(argument: str, seed: int, where: str) -> str:
    """An argument with the seed in the place of ``{seed}``; other words in braces are mistakes."""
    other = [word for word in _BRACES.findall(argument) if word != "seed"]
    if other:
        raise ConfigError(f"{where}: {shown(argument)} holds {{{other[0][:30]}}}; allowed in braces is {{seed}} alone")
    return argument.replace("{seed}", str(seed))


def _distilled_with_seeds(suite: Suite, where: str) -> dict[str, Sequence[str]]:
    """Each conversion once for every seed of its teacher, where it names the teacher without one."""
    distilled: dict[str, Sequence[str]] = {}
    for name, (teacher, *args) in suite.distilled.items():
        if not suite.seeds or teacher not in suite.runs:
            distilled[name] = [teacher, *args]
            continue
        for seed in suite.seeds:
            own = (_with_seed(argument, seed, where) for argument in args)
            distilled[f"{name}-s{seed}"] = [f"{teacher}-s{seed}", *own]
    return distilled
