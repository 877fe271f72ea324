"""Jobs of the viewer: one of a title at a time, whoever presses the button; and a worker on the newest value."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from eugen_nerf.core.errors import ConfigError
from eugen_viewer.background_jobs import Jobs, NewestValueWorker
from eugen_viewer.server import failures


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_written", [])


def test_long_work_reports_ends_and_fails_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    reported: list[tuple[str, float | None, str]] = []
    jobs = Jobs(lambda *line: reported.append(line))
    assert jobs.start("good", lambda progress: (progress(0.5, "half"), "done")[1])
    jobs.wait("good", 5)
    assert reported[-2:] == [("good", 0.5, "half"), ("good", 1.0, "done")]

    def refuse(_: object) -> str:
        raise ConfigError("choose another")

    def break_(_: object) -> str:
        raise KeyError("a defect")

    jobs.start("bad", refuse)
    jobs.wait("bad", 5)
    assert reported[-1] == ("bad", 1.0, "failed: choose another")
    jobs.start("worse", break_)
    jobs.wait("worse", 5)
    assert reported[-1][2].startswith("failed: KeyError")
    said = capsys.readouterr().err
    assert said.startswith("worse: KeyError: 'a defect' (test_background_jobs.py:")
    assert len(said.splitlines()) == 1


def test_a_button_that_two_tabs_press_at_once_starts_one_job() -> None:
    jobs, released, ran = Jobs(lambda *_: None), threading.Event(), []
    together = threading.Barrier(16)

    def work(_: object) -> str:
        ran.append(1)
        released.wait(10)
        return ""

    def press() -> bool:
        together.wait()
        return jobs.start("save", work)

    with ThreadPoolExecutor(16) as pool:
        started = [future.result() for future in [pool.submit(press) for _ in range(16)]]
    released.set()
    jobs.wait("save", 10)
    assert (sum(started), len(ran)) == (1, 1)
    assert jobs.start("save", work)  # another press, once it has ended
    jobs.wait("save", 10)


def test_only_the_newest_value_is_worked_on() -> None:
    gate, processed = threading.Event(), []

    def act(value: int) -> None:
        gate.wait(5)
        processed.append(value)

    latest: NewestValueWorker[int] = NewestValueWorker(act)
    latest.put(0)
    while not latest._busy:
        pass
    for value in range(1, 6):
        latest.put(value)
    gate.set()
    assert latest.wait_until_idle(5)
    assert processed == [0, 5]


def test_a_worker_goes_on_after_a_value_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    got: list[int] = []
    worker: NewestValueWorker[int] = NewestValueWorker(lambda value: got.append(1 // value))
    for value in (0, 1):
        worker.put(value)
        assert worker.wait_until_idle(20)
    assert got == [1]
    assert capsys.readouterr().err.startswith("a change was left out: ZeroDivisionError")
