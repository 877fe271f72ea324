"""Parts run in processes of their own, are stopped when their time is over, and keep what they have measured."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.gpu_day.day import ROOT, Day
from eugen_nerf.gpu_day.day_parts import PARTS, DayPart
from eugen_nerf.gpu_day.rows import RowLog, read_rows
from eugen_nerf.gpu_day.supervisor import RESULT, Running, Supervisor, failures, groups_of


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Day:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return Day(tmp_path / "out", tmp_path / "work", tmp_path / "data", "cpu", 5.0, tiny=True)


def alive(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    return status.is_file() and "State:\tZ" not in status.read_text()


def test_a_part_that_takes_too_long_is_stopped_whole_and_keeps_its_rows(day: Day) -> None:
    parts = [DayPart("slow", "day_probe:slow", 1, least=0), DayPart("networks", "day_probe:quick", 4, least=0)]

    class Patient(Supervisor):
        def _over(self, running: Running) -> bool:
            """The first part's time ends a moment after it has begun its endless row, however slow the machine is."""
            if running.part.name == "slow":
                begun = (day.work / "child").exists()
                running.end = min(running.end, time.monotonic() + 1) if begun else time.monotonic() + 1
            return super()._over(running)

    Patient(day, parts).run()
    result = json.loads((day.output / RESULT).read_text())
    slow, quick = result["parts"]["slow"], result["parts"]["networks"]
    assert [row["row"] for row in slow["rows"]] == ["kept"]
    assert slow["state"].startswith("stopped after")
    assert not alive(int((day.work / "child").read_text())), "what the part started is still at work"
    assert [row["row"] for row in quick["rows"]] == ["first", "broken", "last"]
    assert quick["rows"][0]["figures"]["value"] is None, "JSON has no NaN"
    assert "KeyError: 'nothing'" in quick["rows"][1]["error"]
    assert result["failed"] == ["networks: broken"]


def test_a_second_call_goes_on_where_the_first_ended(day: Day) -> None:
    parts = [DayPart("networks", "day_probe:quick", 1, least=0), DayPart("late", "day_probe:losing", 1, least=1e6)]
    first = Supervisor(day, parts)
    first.run()
    assert first.states["late"].startswith("not begun")
    rows = first.result()["parts"]["networks"]["rows"]
    second = Supervisor(day, [parts[0], DayPart("late", "day_probe:losing", 1, least=0)])
    second.run()
    assert second.states["networks"] == "done by an earlier call"
    assert second.result()["parts"]["networks"]["rows"] == rows
    assert [row["row"] for row in second.result()["parts"]["late"]["rows"]] == ["lost", "after"]
    assert second.states["late"].startswith("done"), "after a lost device another process goes on"


def test_a_stopped_command_stops_its_part_and_still_has_results(day: Day) -> None:
    code = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from eugen_nerf.gpu_day.day import Day\n"
        "from eugen_nerf.gpu_day.day_parts import DayPart\n"
        "from eugen_nerf.gpu_day.supervisor import Supervisor\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "day = Day.read(Path(sys.argv[1]))\n"
        "Supervisor(day, [DayPart('waiting', 'day_probe:waiting', 1, least=0)]).run()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(day.write())], env=day.environment(), cwd=ROOT)
    try:
        end = time.monotonic() + 200
        while not (day.work / "waiting").exists() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    finally:
        process.kill()
    found = json.loads((day.output / RESULT).read_text())["parts"]["waiting"]
    assert found["state"] == "stopped with the day"
    assert [row["row"] for row in found["rows"]] == ["kept"]


def test_no_row_begins_late_and_none_is_measured_twice(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    log = RowLog(path, "part", 60)
    log.measure("a", lambda: {"value": 1})
    with path.open("a") as file:
        file.write('{"part": "part", "row": "b", "sec')  # cut off while it was written
    late = RowLog(path, "part", 0)
    late.measure("a", lambda: {"value": 2})
    late.measure("b", lambda: {"value": 2})
    assert late.left_out == ["b"]
    assert [row["figures"]["value"] for row in read_rows(path)] == [1]


def test_time_is_shared_by_worth_and_the_most_valuable_parts_fit_three_minutes(tmp_path: Path) -> None:
    day = Day(tmp_path, tmp_path / "work", tmp_path, "cpu", 3.0, tiny=True)
    supervisor = Supervisor(day)
    groups = groups_of(PARTS)
    assert [part.name for part in groups[0]] == ["networks", "methods"]
    seconds = supervisor._seconds_of(groups[0])
    assert 60 <= seconds < 75, "enough for the checks, and most of the time is left"
    assert supervisor._seconds_of(groups[-1]) == pytest.approx(supervisor.left, abs=1), "the last one takes the rest"
    assert sum(group[0].share for group in groups) <= 12 * 60


def test_time_is_shared_as_if_all_calls_were_one(tmp_path: Path) -> None:
    whole = Supervisor(Day(tmp_path / "a", tmp_path / "a", tmp_path, "cpu", 12.0, tiny=True))
    day = Day(tmp_path / "b", tmp_path / "b", tmp_path, "cpu", 12.0, 9.0, tiny=True)
    first, groups = Supervisor(day), groups_of(PARTS)
    assert first._seconds_of(groups[1]) == pytest.approx(whole._seconds_of(groups[1]), abs=1)
    assert first.left < 9 * 60 < first.left_of_day
    (day.work / "seconds").write_text("540")
    second = Supervisor(Day(tmp_path / "b", tmp_path / "b", tmp_path, "cpu", 12.0, 3.0, tiny=True))
    assert second.left_of_day == pytest.approx(second.left, abs=1), "nothing follows it"


def test_only_checks_fail_a_day() -> None:
    bad, error = {"row": "a", "figures": {"ok": False}}, {"row": "b", "error": "..."}
    fine = {"row": "c", "figures": {"ok": True}}
    parts = {name: {"state": "done in 1 s", "rows": [error]} for name in ("methods", "training")}
    parts["networks"] = {"state": "ended with status 1 after 2 s: no torch", "rows": [fine, bad]}
    assert failures(parts) == ["networks: a", "networks: ended with status 1 after 2 s: no torch", "methods: b"]


def test_no_time_and_no_device_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="0 minutes are given"):
        Day(tmp_path, tmp_path, tmp_path, "cpu", 0.0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="--dry-run"):
        Day(tmp_path, tmp_path, tmp_path, "cuda")
