"""Names, paths and places: what no file system takes is refused before anything is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from eugen_nerf.core.checks.names import NAME, NAME_BYTES, check_name, check_texts, shown
from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.errors import ConfigError, RunError

BAD_NAMES = [
    *("", ".", "..", "../up", "../../up", "a/b", "/tmp/x", "a\\b", "a\0b", "a\nb", "\x1b[31m", "\x7f", "\u2028"),
    *("a" * (NAME_BYTES + 1), "\u00e4" * (NAME_BYTES // 2 + 1), "\ud800", "\udcff", " a", "a ", "-a", "--output"),
]
GOOD_NAMES = [
    "a",
    "a b",
    "EUGen, m = 32",
    "run.1",
    ".hidden",
    "...",
    "\u00e4\u6f22",
    "{seed}",
    "\u00e4" * (NAME_BYTES // 2),
    "a-b",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_bad_names_are_refused_in_one_line_that_can_be_printed(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--timestamp .* cannot name a folder: it ") as caught:
        check_name(name, "--timestamp")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    assert message.isprintable()


@pytest.mark.parametrize("name", [None, 3, ["a"], True])
def test_what_is_no_text_is_no_name(name: object) -> None:
    with pytest.raises(ConfigError, match="it is no text"):
        check_name(name, "name")


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names_are_folders_of_that_name_in_that_place(name: str, tmp_path: Path) -> None:
    check_name(name, "name")
    (tmp_path / name / f".{name}.12345678.partial").mkdir(parents=True)  # with what temporary names add
    assert [path.name for path in tmp_path.iterdir()] == [name]


@dataclass
class Inner:
    """A group of options."""

    text: str = "t"


@dataclass
class Settings:
    """Options."""

    name: Annotated[str | None, NAME] = None
    names: Annotated[tuple[str, ...], NAME] = ()
    text: str = "any/thing"
    path: Path = Path("../somewhere")
    paths: tuple[Path, ...] = ()
    inner: Inner = field(default_factory=Inner)


def test_texts_of_settings_are_what_their_annotations_say() -> None:
    check_texts(Settings())
    check_texts(Settings("a", ("b", "c"), "x/y", Path("/a/b"), (Path("c"),), Inner("../d")))
    wrong = {
        "--name ": Settings(name="a/b"),
        "--names ": Settings(names=("a", "..")),
        "--text ": Settings(text="a\0"),
        "--path ": Settings(path=Path("x" * 256)),
        "--paths ": Settings(paths=(Path("a"), Path("a\nb"))),
    }
    for option, settings in wrong.items():
        with pytest.raises(ConfigError, match=option):
            check_texts(settings)
    with pytest.raises(ConfigError, match="--text"):
        check_texts(Settings(inner=Inner("\x1b")))
    check_texts(Settings(path=Path("x" * 255)))
    with pytest.raises(ConfigError, match="--path"):
        check_texts(Settings(path=Path(*["x" * 100] * 40)))


def test_values_are_shown_in_one_short_line() -> None:
    bomb: list[object] = ["x"]
    for _ in range(60):
        bomb = [bomb] * 10  # 10^60 texts, if anything went through them all
    bomb[0] = bomb
    for value in (None, True, 3, 10**5000, 1e300, "a\nb\ud800", "x" * 9999, bomb, {"a": bomb}, object(), b"\0" * 999):
        assert len(shown(value)) < 200, shown(value)
        assert shown(value).isprintable()
    assert [shown(value) for value in (None, True, 3, "a")] == ["null", "true", "3", "'a'"]


def test_places_where_nothing_can_be_written_are_refused_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    refused = [
        (tmp_path / "file", "folder"),
        (tmp_path / "folder", "file"),
        (tmp_path / "file/below", "folder"),
        (tmp_path / "file/below/deeper", "file"),
        (tmp_path / ("n" * 256), "file"),
        (Path("/dev/null"), "file"),
        (Path("/proc/nothing/here"), "folder"),
        (Path("/proc/nothing"), "file"),
        (tmp_path / "loop/below", "file"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for path, kind in refused:
        with pytest.raises((ConfigError, RunError), match=r"--output|--bundle") as caught:
            check_place(path, kind, "--bundle")  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    for path, kind in [("folder", "folder"), ("file", "file"), ("new/deep", "file"), ("new/deep", "folder")]:
        check_place(tmp_path / path, kind)  # type: ignore[arg-type]
    assert sorted(tmp_path.rglob("*")) == before
