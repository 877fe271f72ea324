"""All parts of a day by their own code, at tiny sizes on a CPU."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from nerfstudio.configs.method_configs import all_methods

from eugen_nerf.evaluation.documents.day_tables import NOT_RUN, DayTable, day_table
from eugen_nerf.gpu_day import console_runs, expected_costs, sessions
from eugen_nerf.gpu_day.day import ROOT, Day
from eugen_nerf.gpu_day.day_parts import PARTS
from eugen_nerf.gpu_day.digest import digest
from eugen_nerf.gpu_day.measurements import image_rows, method_checks, timed_sessions
from eugen_nerf.gpu_day.measurements.step_costs import STAGES, count_calls
from eugen_nerf.gpu_day.rows import read_rows
from eugen_nerf.gpu_day.supervisor import Supervisor, measure_part
from eugen_nerf.gpu_day.tiny_sets import write_tiny_sets

pytestmark = pytest.mark.long

FUNCTIONS = {part.name: part.function for part in PARTS}


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    """What a part sets for its process is gone for the tests that follow in this one."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    work = tmp_path_factory.mktemp("day")
    found = Day(work / "out", work, work / "data", "cpu", 5.0, tiny=True, compiled=False)
    write_tiny_sets(found.data)
    found.write()
    return found


def figures(day: Day, name: str) -> dict[str, dict[str, Any]]:
    """What a part measured in this process; none of its rows may have failed or be left out."""
    assert measure_part(day, name, FUNCTIONS[name], 600) == []
    rows = read_rows(day.rows / f"{name}.jsonl")
    assert [row for row in rows if "error" in row] == []
    return {row["row"]: row["figures"] for row in rows}


def test_networks_and_kernels_are_checked_in_a_process_with_torch_alone(day: Day) -> None:
    blocked = "import sys; sys.modules['nerfstudio'] = None\n"
    code = f"{blocked}from eugen_nerf.gpu_day.__main__ import main; main(*sys.argv[1:])"
    words = [sys.executable, "-c", code, str(day.work / "day.json"), "networks", FUNCTIONS["networks"]]
    words.append(f"{time.time() + 300}")
    done = subprocess.run(words, env=day.environment(), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["row"]: row for row in read_rows(day.rows / "networks.jsonl")}
    assert [row for row in rows.values() if "error" in row] == []
    assert rows["compiling"]["figures"]["compiled"] == rows["compiling"]["figures"]["of"] > 0
    networks = {name: row["figures"] for name, row in rows.items() if ": " in name}
    assert len(networks) == 3 * 6 + 5, (
        "dense, two EUGen, as published, narrower, of low rank; iSDF was not published so"
    )
    assert all(found["ok"] for found in networks.values())
    plans = Counter(plan["plan"].split(",")[0] for found in networks.values() for plan in found["plans"])
    assert plans["triton"] == 2
    assert plans["eager"] == 2 * len(networks)


def test_every_method_is_checked(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_checks, "presets", lambda: ["eugen-nerf", "eugen-isdf-small"])
    found = figures(day, "methods")
    assert list(found) == [
        "eugen-nerf, eugen",
        "eugen-isdf-small, eugen",
        "eugen-nerf, dense",
        "eugen-isdf-small, dense",
    ]
    assert all(row["ok"] and row["devices"] == ["cpu"] for row in found.values())


def test_training_is_timed_taken_apart_and_evaluated(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {"rows": [{"preset": "eugen-nerf", "variant": "eugen", "launches": 700, "waits": 11}]}
    (day.work / "counted.json").write_text(json.dumps(counted))
    monkeypatch.setattr(expected_costs, "PRETENDED", day.work / "counted.json")
    monkeypatch.setattr(expected_costs, "ROOFLINE", day.work / "absent.json")
    found = figures(day, "training")
    assert len(found) == 14
    for row in found.values():
        assert set(row["split_ms"]) == set(STAGES)
        assert all(ms > 0 for ms in row["split_ms"].values())
        assert row["steps"] == 2
        assert row["peak_memory_bytes"] > 0
    assert {row["data"] for row in found.values()} == set(sessions.SETS.values())
    assert {"psnr", "ssim"} <= set(found["eugen-nerf, dense"]["metrics"])
    assert found["eugen-nerf, eugen"]["pretended_launches"] == 700
    assert found["eugen-nerf, dense"]["pretended_launches"] is None
    assert found["eugen-nerf, eugen"]["predicted_ms"] is None


def test_precisions_and_longer_training(day: Day) -> None:
    found = figures(day, "precision")
    assert [row["arithmetic"] for row in found.values()] == 4 * ["float32", "tf32", "bfloat16"]
    assert list(figures(day, "long")) == ["eugen-zipnerf, eugen", "eugen-nerf, eugen", "eugen-nerf, dense"]


def test_the_arithmetic_is_the_model_s_setting() -> None:
    config = copy.deepcopy(all_methods["eugen-nerf"])
    for arithmetic, setting in (("bfloat16", "bfloat16"), ("float32", "exact"), ("tf32", "fast")):
        timed_sessions.set_arithmetic(config, arithmetic)
        assert config.pipeline.model.arithmetic == setting
        assert timed_sessions.arithmetic_of(config, "cuda") == arithmetic
    assert timed_sessions.arithmetic_of(config, "cpu") == "float32"
    assert timed_sessions.arithmetic_of(all_methods["nerfacto"], "cuda") == "float32"


def test_a_schedule_is_shortened_as_a_whole(day: Day) -> None:
    trainer = sessions.session(day, "eugen-dnerf")
    timed_sessions.shorten_schedules(trainer, 2000)  # of 200,000
    schedule = trainer.config.optimizers["fields"]["scheduler"]
    assert (schedule.max_steps, schedule.warmup_steps) == (2000, 5)
    assert trainer.pipeline.datamanager.reveal_steps == 100
    rates = []
    for _ in range(2000):
        trainer.optimizers.schedulers["fields"].step()
        rates.append(trainer.optimizers.schedulers["fields"].get_last_lr()[0])
    assert rates[4] == pytest.approx(5e-4, rel=0.01), "the full rate after the warm-up"
    assert rates[-1] == pytest.approx(5e-4 / 20, rel=0.01), "the last rate at the end"


def test_commands_are_typed_as_a_user_types_them(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    original, words_of = console_runs._run, []

    def run(day: Day, log: Any, words: list[str]) -> dict[str, Any]:
        words_of.append(words)
        if words[0] == "nerfstudio.scripts.train":  # the others are run by other tests
            return original(day, log, words)
        if words[0] == "nerfstudio.scripts.eval":
            assert Path(words[2]).is_file()
            Path(words[4]).write_text('{"results": {"psnr": 20.0}}')
        return {"seconds": 1.0}

    monkeypatch.setattr(console_runs, "_run", run)
    found = figures(day, "commands")
    assert list(found) == ["ns-train", "ns-eval", "eugen-eval"]
    assert found["ns-eval"]["results"] == {"psnr": 20.0}


def test_the_plugin_is_found_without_installation() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    variables = sessions.plugin_variables()
    for group, variable in (
        ("nerfstudio.method_configs", "NERFSTUDIO_METHOD_CONFIGS"),
        ("nerfstudio.dataparser_configs", "NERFSTUDIO_DATAPARSER_CONFIGS"),
    ):
        assert dict(entry.split("=") for entry in variables[variable].split(",")) == points[group]


def test_networks_and_images_are_timed_by_every_way(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_rows, "VARIANTS", ("dense", "narrow"))
    found = figures(day, "queries")
    names = {row["name"] for row in found["queries of NeRF 8x256"]["queries"]}
    for network in ("dense", "EUGen m=8", "EUGen m=4", "narrower, as m=4", "low rank, as m=4"):
        ways = {"eager", "eager (TF32)", "eager plan float32", "eager plan float32 (TF32)", "eager plan bfloat16"}
        assert {f"{network}, {way}" for way in ways} <= names
    assert len(found) == 4 + 1 + 3 + 2
    images = figures(day, "images")
    assert set(images) == {*sessions.FAMILIES_OF_METHODS, "nerfacto", "vanilla-nerf"}
    assert all(row["seconds_per_image"] > 0 for found in images.values() for row in found["images"])


def test_launches_are_counted_by_the_names_of_calls() -> None:
    calls = Counter({"cudaLaunchKernel": 20, "cuLaunchKernelEx": 4, "cudaMemcpyAsync": 6, "cudaStreamSynchronize": 2})
    calls += Counter({"cudaMalloc": 5, "aten::mm": 9, "cudaDeviceSynchronize": 2})
    assert count_calls(calls, 2) == {"launches": 15, "synchronisations": 2}


def test_the_summary_fits_and_the_page_is_made_of_the_results(day: Day, tmp_path: Path) -> None:
    result = Supervisor(day).result()
    lines = digest(result)
    assert len(lines) <= 100
    assert sum(len(line) + 1 for line in lines) < 12_000
    assert any(line.startswith("eugen-zipnerf, dense") for line in lines)
    place = DayTable("page.md", "name", "gpu_day.json", "training")
    assert day_table(place, tmp_path) == NOT_RUN, "there is no result"
    (tmp_path / "gpu_day.json").write_text(json.dumps(result))
    assert day_table(place, tmp_path) == NOT_RUN, "a dry run says nothing of a GPU"
    (tmp_path / "gpu_day.json").write_text(json.dumps({**result, "dry_run": False}))
    for of in ("training", "precision", "long", "commands", "queries NeRF 8x256", "images eugen-nerf"):
        table = day_table(DayTable("page.md", "name", "gpu_day.json", of), tmp_path)
        assert table.startswith("| ")
    headings = day_table(place, tmp_path).splitlines()[0]
    assert "PSNR" in headings
    assert "roofline" not in headings, "a column without values is left out"


def test_the_page_says_that_nothing_was_run() -> None:
    page = (ROOT / "docs" / "results" / "gpu.md").read_text()
    if not (ROOT / "docs" / "results" / "data" / "gpu_day.json").exists():
        assert NOT_RUN.strip() in page


def test_parts_find_what_compilers_kept(day: Day) -> None:
    environment = day.environment()
    assert Path(environment["TRITON_CACHE_DIR"]).is_relative_to(day.work)
    assert Path(environment["TORCHINDUCTOR_CACHE_DIR"]).is_relative_to(day.work)
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
