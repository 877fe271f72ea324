"""Options under new names: the old ones still work, and the new ones are named on stderr."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from eugen_nerf.cli.data import COMMANDS
from eugen_nerf.cli.distill import Distill
from eugen_nerf.cli.eval import EvalCommand
from eugen_nerf.cli.render import RenderCommand
from eugen_nerf.cli.sdf import COMMANDS as SDF_COMMANDS
from eugen_nerf.cli.speed import SpeedCommand
from eugen_nerf.cli.support.options import parse
from eugen_nerf.cli.support.renamed_options import RENAMED, current_arguments
from eugen_nerf.cli.view import ViewCommand

CLASSES = {
    "eugen-eval": EvalCommand,
    "eugen-distill": Distill,
    "eugen-render": RenderCommand,
    "eugen-bench speed": SpeedCommand,
    "eugen-view": ViewCommand,
    **{f"eugen-data {word}": kind for word, kind in COMMANDS.items()},
    **{f"eugen-sdf {word}": kind for word, kind in SDF_COMMANDS.items()},
}


@dataclass
class _Part:
    """A part."""

    size: int = 1
    """A number."""


@dataclass
class _Command:
    """A command."""

    images: bool = True
    """On or off."""
    names: tuple[str, ...] = ()
    """Any number of words."""
    part: _Part = field(default_factory=_Part)
    """Nested."""


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"--pictures": "--images", "--part.length": "--part.size", "--old-size": "--size"}
    monkeypatch.setitem(RENAMED, "command", own)
    monkeypatch.setitem(RENAMED, "commands make", own)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["--pictures"], ["--images"]),
        (["--no-pictures"], ["--no-images"]),
        (["--no_pictures"], ["--no-images"]),
        (["--old-size", "3"], ["--size", "3"]),
        (["--old_size=a_b=c"], ["--size=a_b=c"]),
        (["--part.no-length"], ["--part.no-size"]),
        (["pictures", "--names", "old-size", "--images"], ["pictures", "--names", "old-size", "--images"]),
    ],
)
def test_options_alone_are_renamed(
    before: list[str], after: list[str], table: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert current_arguments("command", before) == after
    assert bool(capsys.readouterr().err) == (before != after)
    assert current_arguments("another command", before) == before


def test_a_command_reads_old_options_and_says_in_one_line_what_to_write(
    table: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--no-pictures", "--names", "a", "b", "--old-size", "4"]
    several = {"make": _Command, "other": _Part}
    for read in (lambda: parse(_Command, "command", words), lambda: parse(several, "commands", ["make", *words])):
        assert read() == _Command(images=False, names=("a", "b"), part=_Part(4))
        (line,) = capsys.readouterr().err.splitlines()
        assert "--no-images instead of --no-pictures" in line
        assert "--size instead of --old-size" in line


@pytest.mark.parametrize("prog", sorted(RENAMED))
def test_every_new_name_is_an_option_and_no_old_one_is(prog: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(CLASSES[prog], prog, ["--help"])
    words = {word.strip(",") for word in capsys.readouterr().out.replace("│", " ").split()}
    assert set(RENAMED[prog].values()) <= words
    assert not set(RENAMED[prog]) & words


def test_an_old_option_of_a_real_command_sets_the_new_one() -> None:
    command = parse(EvalCommand, "eugen-eval", ["--stop-opaque", "0.003", "--no-extras", "--no-save-pictures"])
    inference = command.inference
    assert (inference.early_stop, inference.auxiliary_outputs, command.save_images) == (0.003, False, False)
    assert parse(COMMANDS, "eugen-data", ["photos", "folder", "--largest", "64"]).max_size == 64
    assert parse(ViewCommand, "eugen-view", ["--load-config", "a", "--largest=64"]).load_config == (Path("a"),)
