"""The suite: what is read from YAML, what is skipped, what a failing step says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from eugen_nerf.cli import suite as module
from eugen_nerf.cli.study import is_study
from eugen_nerf.cli.suite import parts, run_suite
from eugen_nerf.cli.suite_file import Suite, read_suite
from eugen_nerf.core.errors import ConfigError, DataError, RunError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", [p for p in sorted((ROOT / "configs").glob("*.yml")) if not is_study(p)], ids=str)
def test_shipped_suites_are_consistent(path: Path) -> None:
    suite = read_suite(path)
    assert not set(suite.runs) & set(suite.distilled)
    assert {teacher for teacher, *_ in suite.distilled.values()} <= set(suite.runs)
    assert all(
        isinstance(argument, str) for args in [*suite.runs.values(), *suite.distilled.values()] for argument in args
    )


def test_every_suite_for_a_cpu_is_in_the_makefile() -> None:
    named = re.findall(r"\b\w+_cpu\b", (ROOT / "Makefile").read_text())
    assert sorted(named) == sorted(path.stem for path in (ROOT / "configs").glob("*_cpu.yml"))


@pytest.mark.parametrize("content", ["- a list", "name: only", "name: x\nunknown: 1", "a: ["])
def test_a_file_that_is_no_suite_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.yml is no suite"):
        read_suite(path)


def fake_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Stands in for every command: notes its call, then runs `script`."""
    tool, calls = tmp_path / "tool", tmp_path / "calls"
    tool.write_text(f'#!/bin/sh\necho "$TOOL $*" >> {calls}\n{script}\n')
    tool.chmod(0o755)
    monkeypatch.setattr(module, "tool", lambda name: ["env", f"TOOL={name}", str(tool)])
    return calls


def make_suite(tmp_path: Path, **changes: object) -> Suite:
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    fields = {"name": "t", "output": tmp_path / "out", "method": "m", "data": data, "runs": {"a": ["--x"], "b": []}}
    return Suite(**{**fields, **changes})  # type: ignore[arg-type]


WRITE_CONFIG = r"""
out=; name=
while [ $# -gt 0 ]; do
  case $1 in --output-dir) out=$2;; --experiment-name) name=$2;; esac
  shift
done
if [ -n "$out" ]; then mkdir -p "$out/$name/m/run"; touch "$out/$name/m/run/config.yml"; fi
"""


def test_a_finished_step_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_tools(tmp_path, monkeypatch, WRITE_CONFIG)
    suite = make_suite(tmp_path, distilled={"c": ["a", "--num-features", "3"]})
    console = Console(quiet=True)
    run_suite(suite, console)
    first = calls.read_text().splitlines()
    assert sorted(line.split()[0] for line in first) == ["eugen-distill", "eugen-eval", "ns-train", "ns-train"]
    assert "--num-features 3" in next(line for line in first if line.startswith("eugen-distill"))
    calls.unlink()
    (tmp_path / "out/runs/b/m/run/training.json").unlink()  # b was interrupted: no record of its end
    run_suite(suite, console)
    second = calls.read_text().splitlines()
    assert [line.split()[0] for line in second] == ["ns-train", "eugen-eval"]
    assert "--experiment-name b" in second[0]


WRITE_PAGE = """if [ "$TOOL" = eugen-web ]; then
  while [ "$1" != --output ]; do shift; done
  echo page > "$2"
fi
"""


def test_a_suite_ends_with_a_page_of_two_of_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_tools(tmp_path, monkeypatch, WRITE_PAGE + WRITE_CONFIG)
    suite = make_suite(tmp_path, distilled={"c": ["a"]}, page=("a", "c"))
    run_suite(suite, Console(quiet=True))
    last = calls.read_text().splitlines()[-1].split()
    configs = [str(tmp_path / f"out/runs/{name}/m/run/config.yml") for name in ("a", "c")]
    assert last[:3] == ["eugen-web", *configs]
    assert last[3:5] == ["--output", str(tmp_path / "out/page.html")]
    assert last[-3:] == ["--names", "a", "c"]
    calls.unlink()
    run_suite(suite, Console(quiet=True))
    assert "eugen-web" not in calls.read_text()


@pytest.mark.parametrize(
    ("page", "message"),
    [("[a, d]", "page names 'd', which is none of the runs a, b, c"), ("[a, b, c]", "3 runs of at most 2")],
)
def test_a_page_of_other_runs_is_refused(tmp_path: Path, page: str, message: str) -> None:
    path = tmp_path / "suite.yml"
    path.write_text(f"name: x\noutput: out\nmethod: m\nruns: {{a: [], b: []}}\ndistilled: {{c: [a]}}\npage: {page}\n")
    with pytest.raises(ConfigError, match=message):
        read_suite(path)


def test_a_failing_step_names_its_last_line_and_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tools(tmp_path, monkeypatch, "echo fine; echo 'error: it broke' >&2; exit 3")
    with pytest.raises(RunError, match=r"error: it broke.*train-.*\.log"):
        run_suite(make_suite(tmp_path), Console(quiet=True))


def test_a_conversion_whose_teacher_failed_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_tools(tmp_path, monkeypatch, "exit 3")
    with pytest.raises(RunError, match="failed"):
        run_suite(make_suite(tmp_path, runs={"a": []}, distilled={"c": ["a"]}), Console(quiet=True), workers=2)
    assert [line.split()[0] for line in calls.read_text().splitlines()] == ["ns-train"]


def test_a_step_that_writes_nothing_is_an_error_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_tools(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(RunError, match=r"did not write .*config\.yml; see .*\.log"):
        run_suite(make_suite(tmp_path, runs={"a": []}), Console(quiet=True))


@pytest.mark.parametrize(("stock", "ours"), [("vanilla-nerf", "eugen-nerf"), ("dnerf", "eugen-dnerf")])
def test_a_stock_run_copied_into_ours_is_found_under_our_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stock: str, ours: str
) -> None:
    folder = f"if [ $TOOL = ns-train ]; then m={stock}; else m={ours}; fi; "
    calls = fake_tools(tmp_path, monkeypatch, folder + WRITE_CONFIG.replace("$name/m/run", "$name/$m/run"))
    suite = make_suite(tmp_path, method=stock, runs={"a": []}, distilled={"c": ["a"]})
    run_suite(suite, Console(quiet=True))
    assert f"c/{ours}/run/config.yml" in calls.read_text().splitlines()[-1]


def test_an_older_report_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tools(tmp_path, monkeypatch, WRITE_CONFIG)
    suite = make_suite(tmp_path)
    for content in ("first", "second"):
        (tmp_path / "out/report").mkdir(parents=True)
        (tmp_path / "out/report/report.json").write_text(content)
        run_suite(suite, Console(quiet=True))
    assert [(tmp_path / f"out/report-{n}/report.json").read_text() for n in (1, 2)] == ["first", "second"]


def test_threads_are_the_suites_whatever_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_tools(tmp_path, monkeypatch, f'echo "$OMP_NUM_THREADS" >> {tmp_path / "threads"}\n{WRITE_CONFIG}')
    for workers in (1, 2):
        suite = make_suite(tmp_path, output=tmp_path / f"out{workers}", distilled={"c": ["b"]}, threads=3)
        run_suite(suite, Console(quiet=True), workers=workers)
    assert (tmp_path / "threads").read_text().split() == ["3"] * 8
    lines = [line.replace("out2", "out1") for line in calls.read_text().splitlines()]
    assert sorted(lines[:4]) == sorted(lines[4:]), "the same commands"


def test_processes_of_torchrun_share_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes at once, as torchrun starts them: each step is done by one, conversions after their teachers."""
    tool = tmp_path / "tool"
    tool.write_text(f'#!/bin/sh\necho "$WORKER $TOOL $*" >> {tmp_path / "calls"}\nsleep 0.2\n{WRITE_CONFIG}')
    tool.chmod(0o755)
    (tmp_path / "data").mkdir()
    script = tmp_path / "process.py"
    script.write_text(
        f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from rich.console import Console
from eugen_nerf.cli import suite
from eugen_nerf.cli.support import runner as jobs
from test_suite import make_suite
suite.tool = lambda name: ["env", "TOOL=" + name, "WORKER=" + os.environ["RANK"], {str(tool)!r}]
jobs._LOOK_EVERY = 0.05
suite.run_suite(make_suite(Path({str(tmp_path)!r}), distilled={{"c": ["b"], "d": ["a"]}}), Console(quiet=True))
"""
    )
    running = [
        subprocess.Popen([sys.executable, str(script)], env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"})
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    done = {(rank, name, words[words.index("--experiment-name") + 1]) for rank, name, *words in calls[:-1]}
    trained, converted = ("ns-train", "eugen-distill")
    assert done == {("0", trained, "a"), ("1", trained, "b"), ("0", converted, "c"), ("1", converted, "d")}
    assert calls[-1][:2] == ["0", "eugen-eval"]
    assert len(calls) == 5


def test_published_rows_reach_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_tools(tmp_path, monkeypatch, WRITE_CONFIG)
    rows = [{"text": "31.31 dB", "source": "a paper", "beside": "a", "differs": "400x400"}]
    run_suite(make_suite(tmp_path, published=rows), Console(quiet=True))
    words = calls.read_text().splitlines()[-1].split()
    assert json.loads(Path(words[words.index("--published") + 1]).read_text()) == rows
    path = tmp_path / "s.yml"
    for wrong in ("text", [{"text": "x"}], [{"text": "x", "source": "y", "more": "z"}], [{"text": 1, "source": "y"}]):
        path.write_text(yaml.safe_dump({"name": "n", "output": "o", "method": "m", "runs": {}, "published": wrong}))
        with pytest.raises(ConfigError, match=r"s\.yml.* published"):
            read_suite(path)


def test_scenes_and_methods_have_a_part_each(tmp_path: Path) -> None:
    path = tmp_path / "s.yml"
    base = {"name": "n", "output": "o", "runs": {"a": ["--y"]}, "train": ["--x"]}
    path.write_text(
        yaml.safe_dump(
            {**base, "scenes": {"one": "d1", "two": "d2"}, "methods": {"m": [], "k": ["--steps=3"]}}, sort_keys=False
        )
    )
    found = parts(read_suite(path))
    assert [(p.scene, p.method, p.suite.data) for p in found] == [
        ("one", "m", Path("d1")),
        ("one", "k", Path("d1")),
        ("two", "m", Path("d2")),
        ("two", "k", Path("d2")),
    ]
    assert [p.suite.output for p in found[:2]] == [Path("o/one/m"), Path("o/one/k")]
    assert [(p.suite.method, p.suite.train) for p in found[:2]] == [("m", ["--x"]), ("k", ["--x", "--steps=3"])]
    path.write_text(yaml.safe_dump({**base, "method": "m", "data": "d"}))
    (alone,) = parts(read_suite(path))
    assert (alone.suite.output, alone.suite.name, alone.suite.method) == (Path("o"), "n", "m")
    for wrong in ({}, {"method": "m", "methods": {"k": []}}, {"method": "m", "data": "d", "scenes": {"a": "b"}}):
        path.write_text(yaml.safe_dump({**base, **wrong}))
        with pytest.raises(ConfigError, match=r"s\.yml: give either"):
            read_suite(path)


def test_missing_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run_suite(make_suite(tmp_path, data=tmp_path / "nowhere"), Console(quiet=True))


def test_yaml_round_trip_gives_paths(tmp_path: Path) -> None:
    path = tmp_path / "s.yml"
    path.write_text(yaml.safe_dump({"name": "n", "output": "o", "method": "m", "runs": {"a": []}, "data": "d"}))
    suite = read_suite(path)
    assert (suite.output, suite.data) == (Path("o"), Path("d"))
