"""Broken runs, suites and data sets, made of whole ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from tiny_data import write_blender, write_nerfstudio

from eugen_nerf.methods.runs.checkpoints import allow_numpy_scalars


def config_of(work: Path, name: str = "nerf-dense") -> str:
    """The `config.yml` of a golden run, relative to the working folder."""
    (path,) = work.glob(f"runs/{name}/*/golden/config.yml")
    return str(path.relative_to(work))


def broken_runs(work: Path) -> Iterator[tuple[str, bool]]:
    """Names of folders with a broken copy of a run each, and whether it is a map of signed distances."""
    (work / "empty").mkdir()
    for is_map, source in ((False, "nerf-dense"), (True, "isdf-factors")):
        whole = work / config_of(work, source)
        text = whole.read_text(encoding="utf8")
        for number, content in enumerate(_broken_configs(text)):
            folder = work / f"c{number}-{source}"
            shutil.copytree(whole.parent, folder)
            (folder / "config.yml").write_bytes(content)
            yield folder.name, is_map
        for number, change in enumerate(CHECKPOINT_CHANGES):
            folder = work / f"k{number}-{source}"
            shutil.copytree(whole.parent, folder)
            (path,) = (folder / "nerfstudio_models").iterdir()
            change(path)
            yield folder.name, is_map
        for name in ("dataparser_transforms.json",):
            for number, content in enumerate((b"", b"[]", b'{"transform": 3}', b"{" * 9000, b"\xff\xfe")):
                folder = work / f"t{number}-{source}"
                shutil.copytree(whole.parent, folder)
                (folder / name).write_bytes(content)
                yield folder.name, is_map
        folder = work / f"folder-{source}"
        shutil.copytree(whole.parent, folder)
        (folder / "config.yml").unlink()
        (folder / "config.yml").mkdir()
        yield folder.name, is_map


def _broken_configs(text: str) -> Iterator[bytes]:
    whole = text.encode()
    start = text.split("\n", 1)[0].encode()
    yield from (
        b"",
        whole[: len(whole) // 2],
        whole[:200],
        b"a: [",
        b"null",
        b"- 1",
        b"\xff\xfe" + text.encode("utf-16-le"),
    )
    yield text.encode("utf-16")
    yield whole + "# \u00e4\n".encode("latin-1")
    yield whole.replace(b"\n", b"\n\0", 1)
    yield start + b"\na: " + b"[" * 20_000
    yield (
        start + b"\n" + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 9))
    )
    yield whole + b"method_name: other\n"
    yield whole + b"hook: 1\n"
    for old, new in (
        ("max_num_iterations: ", "max_num_iterations: many #"),
        ("method_name: ", "method_name: !!python/object/apply:os.mkdir [hit] #"),
        ("method_name: ", "method_name: [1] #"),
        ("pipeline: ", "pipeline: 3 #"),
        ("machine: ", "machine: null #"),
        ("data: ", "data: {a: 1} #"),
        ("  datamanager: ", "  datamanager: null #"),
    ):
        if old in text:
            yield text.replace(old, new, 1).encode()


def _saved(content: object) -> Any:
    return lambda path: torch.save(content, path)


def _changed(change: Any) -> Any:
    def edit(path: Path) -> None:
        allow_numpy_scalars()
        state = torch.load(path, weights_only=True)
        weights = (key for key in state["pipeline"] if key.endswith("weight"))
        change(state, next(weights))
        torch.save(state, path)

    return edit


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHECKPOINT_CHANGES = (
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:5000]),
    lambda path: path.write_text("text"),
    lambda path: path.unlink(),
    _folder,
    _saved(torch.zeros(3)),
    _saved([1, 2]),
    _saved({"state_dict": {}}),
    _saved({"pipeline": {}, "step": 3}),
    _saved({"pipeline": {"_model.x": torch.zeros(3)}, "step": 3}),
    _saved({"pipeline": None, "step": "3"}),
    _changed(lambda state, key: state["pipeline"].pop(key)),
    _changed(lambda state, key: state["pipeline"].update({key: torch.zeros(7)})),
    _changed(lambda state, key: state["pipeline"][key].fill_(torch.nan)),
    _changed(lambda state, key: state["pipeline"].update({key: "text"})),
    _changed(lambda state, key: state["pipeline"].update({key: state["pipeline"][key].to(torch.int8)})),
    _changed(lambda state, key: state.update(step=-1)),
)


def broken_suites(work: Path) -> Iterator[str]:
    """Names of files that are no suites, most of them written here."""
    whole = {"name": "n", "output": "o", "method": "eugen-nerf-small", "data": "data/scene", "runs": {"a": []}}
    values = [None, 3, 1.5, [1], {"a": 3}, {"../up": []}, "", {"a/b": []}, {3: []}, "\0", "x" * 30_000, {"x" * 300: []}]
    keys = ("name", "output", "method", "runs", "data", "train", "distilled", "seeds", "workers", "threads")
    changes = [{key: value} for key in (*keys, "published", "evaluator") for value in values]
    fine = ({"data": None}, {"threads": None}, {"threads": 3}, {"workers": 3}, {"train": ""}, {"seeds": [1]})
    for number, change in enumerate(each for each in changes if each not in fine):
        path = work / f"s{number}.yml"
        path.write_text(yaml.safe_dump({**whole, **change}))
        yield path.name
    texts = [
        *(b"", b"\0", "a: \u00e4".encode("latin-1"), yaml.safe_dump(whole).encode("utf-16"), b"[" * 9000, b"a: ["),
        *(
            b"name: n\nname: n",
            b"!!python/object/apply:os.mkdir [hit]",
            b"name: !x y",
            b"name: 2026-99-99",
            b"3",
            b"- a",
        ),
    ]
    for number, text in enumerate(texts):
        path = work / f"x{number}.yml"
        path.write_bytes(text)
        yield path.name
    yield from ("nowhere.yml", "full", "/dev/null", "a\nb", "", "n" * 300, "file")
    for place in ("file", "file/below", "/proc/nothing/x"):
        path = work / f"p{len(place)}.yml"
        path.write_text(yaml.safe_dump({**whole, "output": place}))
        yield path.name


def broken_data_sets(work: Path) -> Iterator[str]:
    """Names of folders with a broken data set each."""
    whole = work / "whole"
    for name, write in (("blender", write_blender), ("images", write_nerfstudio)):
        (whole / name).mkdir(parents=True)
        write(whole / name)
        (document,) = [
            path for path in (whole / name).glob("*.json") if "val" not in path.name and "test" not in path.name
        ]
        content = json.loads(document.read_text())
        changed: list[Any] = [
            *(None, [], 3, {}, {**content, "frames": []}, {**content, "frames": None}, {**content, "frames": [{}]}),
            *({**content, "camera_angle_x": "x", "fl_x": "x"}, {**content, "camera_angle_x": -1, "fl_x": -1}),
        ]
        for key, values in (
            ("transform_matrix", (None, [], [[1]], [[float("nan")] * 4] * 4, [[1e300] * 4] * 4, [[0] * 4] * 4, "x")),
            ("file_path", (None, 3, "", "nowhere", "..", "/dev/null", "a\0b", "x" * 300, ["a"])),
        ):
            for value in values:
                changed.append({**content, "frames": [{**content["frames"][0], key: value}, *content["frames"][1:]]})
        texts = [json.dumps(each).encode() for each in changed]
        texts += [b"", b"\xff", b"{", b"[" * 90_000, json.dumps(content).encode()[:-9]]
        for number, text in enumerate(texts):
            folder = work / f"d{number}-{name}"
            shutil.copytree(whole / name, folder)
            (folder / document.name).write_bytes(text)
            yield folder.name
