"""Suites that hold something else than they should: one line with the key, what was given and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from eugen_nerf.cli.study import is_study, read_study
from eugen_nerf.cli.suite_file import read_suite
from eugen_nerf.core.errors import ConfigError

SUITE: dict[str, Any] = {
    "name": "n", "output": "o", "method": "m", "runs": {"a": ["--x"], "b": []}, "distilled": {"c": ["a", "--y"]},
    "data": "d", "settings": {}, "seeds": [], "seed_args": ["--s={seed}"], "train": ["--t"], "dataparser": ["p"],
    "evaluator": "images", "evaluate": ["--z"], "workers": 2, "threads": 1, "published": [], "scene": ["--w"],
    "generator": "room",
}  # fmt: skip
STUDY: dict[str, Any] = {
    "name": "n", "output": "o", "study": "layer_fit", "settings": {"width": 8}, "seeds": [0], "workers": 1,
    "threads": None, "published": [],
}  # fmt: skip
WRONG_FOR_ALL: list[Any] = [
    *(3.5, -1, 10**30, "\0", "x" * 30_000, [None], [[["a"]]], [{"a": 1}], {"a": None}, {3: []}, {"a": [None]}),
    *({"../up": []}, {"a/b": []}, {"": []}, {"x" * 300: []}, {"a": [["b"]]}, {"a": [True]}, [1.5], [True], {"a": {}}),
]
"""Each is wrong for every key, as none of them takes it."""
NAMES = ["..", "../../up", "/tmp/up", "a/b", "a\\b", "", " ", "-a", "a\nb", "x" * 300, "\u00e4" * 150]


def refused(path: Path) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(ConfigError) as caught:
        read_study(path) if is_study(path) else read_suite(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert message.isprintable()
    return message


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf8")
    return path


@pytest.mark.parametrize("content", [SUITE, STUDY], ids=["suite", "study"])
def test_every_key_refuses_what_it_does_not_take(content: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "s.yml", content)
    assert read_study(path) if is_study(path) else read_suite(path)
    for key in content:
        for value in WRONG_FOR_ALL:
            message = refused(write(path, {**content, key: value}))
            assert key in message, message
        if content[key] is not None and key not in ("data", "threads"):
            assert key in refused(write(path, {**content, key: None}))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_cannot_be_folders_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yml"
    without = {key: value for key, value in SUITE.items() if key not in ("method", "data", "distilled")}
    for content in (
        {**SUITE, "runs": {name: []}},
        {**SUITE, "method": name},
        {**without, "methods": {name: []}},
        {**without, "method": "m", "scenes": {name: "d"}},
        {**SUITE, "distilled": {name: ["a"]}},
        {**SUITE, "settings": {name: []}},
    ):
        assert "cannot be a name" in refused(write(path, content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": {}}, "runs is empty"),
        ({"distilled": {"c": []}}, r"distilled\.c is empty"),
        ({"distilled": {"a": ["b"]}}, "'a' stands among the runs and among the distilled"),
        ({"seeds": [1, 1]}, "a seed stands twice"),
        ({"seeds": [1], "seed_args": ["--s"]}, "seed_args is .*{seed} must stand"),
        ({"seeds": [1], "seed_args": ["{seed} {sed}"]}, "holds {sed}; allowed in braces is {seed} alone"),
        ({"seeds": [1], "distilled": {"c": ["a", "{}"]}}, "holds {}; allowed"),
        ({"runs": {"a": [], "a-b": []}, "settings": {"b-c": [], "c": []}}, "two runs have one name"),
        ({"seeds": list(range(900))}, "1800 runs of at most 1000"),
        ({"generator": "house"}, "generator is 'house'; allowed is one of scene, dynamic, room"),
        ({"runs": {"a": [3]}}, r"runs\.a\[0\] is 3; allowed is a text \(in quotes"),
        ({"runs": {False: []}}, "a key of runs is false; allowed is a name"),
        ({"workers": True}, "workers is true; allowed is a whole number, at least 1"),
    ],
)
def test_what_does_not_fit_together_is_said(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "s.yml", {**SUITE, "distilled": {}, **changes})
    with pytest.raises(ConfigError, match=message):
        read_suite(path)


def test_braces_of_others_stay_as_they_are(tmp_path: Path) -> None:
    """Without seeds nothing stands for anything, and with them words of JSON stay."""
    path = write(tmp_path / "s.yml", {**SUITE, "runs": {"a": ["{x}", "{0.__class__}"]}})
    assert read_suite(path).runs["a"] == ["{x}", "{0.__class__}"]


TEXTS = {
    "empty": (b"", "is null"),
    "null": (b"null\n", "is null"),
    "a comment": (b"# nothing\n", "is null"),
    "utf-16": ("name: n\n".encode("utf-16"), "not encoded as UTF-8"),
    "latin-1": ("name: \u00e4\n".encode("latin-1"), "not encoded as UTF-8"),
    "nul": (b"name: \0\n", "special characters"),
    "binary": (bytes(range(256)), "not encoded as UTF-8"),
    "too large": (b"# " + b"x" * (1 << 20), "larger than"),
    "twice": (b"name: n\nname: m\n", r"'name' stands twice \(line 2\)"),
    "nested twice": (b"runs:\n  a: []\n  a: []\n", r"'a' stands twice \(line 3\)"),
    "object": (b"name: !!python/object/apply:os.system [true]\n", "constructor for the tag"),
    "tag": (b"name: !x y\n", "constructor for the tag"),
    "wrong date": (b"name: 2026-99-99\n", "month"),
    "wrong tag": (b"name: !!timestamp x\n", "s.yml is no suite"),
    "wrong int": (b"name: !!int x\n", "s.yml is no suite"),
    "list as key": (b"? [a]\n: b\n", "a key is a list"),
    "deep": (b"[" * 20_000, "nested too deeply"),
    "open": (b"name: [a\n", r"line 2"),
    "merge bomb": (
        b"a0: &a0 {k: v}\n" + b"".join(b"a%d: &a%d {<<: [%s]}\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9))
                                      for i in range(1, 12)), "are merged"),
    "laughs": (
        b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9))
                                   for i in range(1, 12)), "no key 'a0'"),
    "laughs in a list": (
        b"name: n\noutput: o\nmethod: m\nruns:\n  a: &a0 [x]\n"
        + b"".join(b"  a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12)),
        r"runs\.a1\[0\] is \['x'\]; allowed is a text"),
    "itself": (b"runs: &r {a: *r}\nname: n\noutput: o\n", r"runs\.a is"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_that_are_no_suite(kind: str, tmp_path: Path) -> None:
    content, message = TEXTS[kind]
    path = tmp_path / "s.yml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_suite(path)
    refused(path)


def test_files_that_are_no_suite(tmp_path: Path) -> None:
    assert "there is no such file" in refused(tmp_path / "nowhere")
    assert "it is no file" in refused(tmp_path)
    assert "it is no file" in refused(Path("/dev/null"))
    path = write(tmp_path / "s.yml", SUITE)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a byte order mark says what is assumed anyway
    assert read_suite(path).name == "n"
