"""Checkpoint files: NumPy scalars under the safe loader, and writes that leave no half file."""

import copy
import errno
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.runs.checkpoints import (
    DamagedCheckpointError,
    allow_numpy_scalars,
    atomic_torch_save,
    load_weights,
    read_checkpoint,
    read_latest_checkpoint,
)


class NotData:
    """Any class that nobody allowed."""


def test_numpy_learning_rates_load_under_weights_only(tmp_path: Path) -> None:
    state = {"base_lrs": [np.float64(1e-3)], "last_lr": [np.float64(0.1) * 3]}
    torch.save(state, tmp_path / "state.ckpt")
    allow_numpy_scalars()
    allow_numpy_scalars()
    loaded = torch.load(tmp_path / "state.ckpt", weights_only=True)
    assert loaded == state
    assert isinstance(loaded["base_lrs"][0], np.float64)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_both_spellings_of_the_scalar_load(module: str) -> None:
    """A checkpoint written under NumPy 1 or 2 names its own module; bytes are rewritten to get either."""
    buffer = io.BytesIO()
    torch.save({"lr": np.float64(0.25)}, buffer, _use_new_zipfile_serialization=False)
    data = buffer.getvalue()
    written = next(name for name in (b"numpy._core.multiarray", b"numpy.core.multiarray") if name in data)
    allow_numpy_scalars()
    loaded = torch.load(io.BytesIO(data.replace(written, module.encode())), weights_only=True)
    assert loaded == {"lr": 0.25}


def test_other_classes_stay_refused(tmp_path: Path) -> None:
    torch.save({"x": NotData()}, tmp_path / "state.ckpt")
    allow_numpy_scalars()
    with pytest.raises(Exception, match="NotData"):
        torch.load(tmp_path / "state.ckpt", weights_only=True)


def test_old_torch_without_the_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.serialization, "add_safe_globals")
    allow_numpy_scalars()


def test_atomic_save_round_trip_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "step-000000001.ckpt"
    for value in (1.0, 2.0):
        atomic_torch_save({"x": torch.full((3,), value)}, path)
        assert torch.equal(torch.load(path, weights_only=True)["x"], torch.full((3,), value))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_full_disk_is_one_line_and_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step-000000001.ckpt"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device") as caught:
        atomic_torch_save({"x": torch.zeros(3)}, path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_write_failure_inside_torch_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nmore")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RunError, match="PytorchStreamWriter failed") as caught:
        atomic_torch_save({}, tmp_path / "a.ckpt")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file or directory"):
        atomic_torch_save({}, tmp_path / "absent" / "a.ckpt")


def test_the_newest_whole_checkpoint_is_taken_and_damaged_ones_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    atomic_torch_save({"pipeline": {}, "step": 3}, tmp_path / "step-000000003.ckpt")
    whole = (tmp_path / "step-000000003.ckpt").read_bytes()
    (tmp_path / "step-000000007.ckpt").write_bytes(b"")
    (tmp_path / "step-000000005.ckpt").write_bytes(whole[: len(whole) // 2])
    path, state = read_latest_checkpoint(tmp_path)
    assert (path.name, state["step"]) == ("step-000000003.ckpt", 3)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("the one before it is taken") == 2
    assert "step-000000007.ckpt" in said
    assert "step-000000005.ckpt" in said


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    for step in (3, 5):
        (tmp_path / f"step-{step:09d}.ckpt").write_bytes(b"half")
    with pytest.raises(DamagedCheckpointError, match=r"step-000000003.*truncated or damaged"):
        read_latest_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_too_little_memory_is_not_called_damage(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (3, 5):
        atomic_torch_save({"pipeline": {}, "step": step}, tmp_path / f"step-{step:09d}.ckpt")

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fails)
    for read in (lambda: read_checkpoint(tmp_path / "step-000000005.ckpt"), lambda: read_latest_checkpoint(tmp_path)):
        with pytest.raises(RunError, match=r"memory does not hold checkpoint .*step-000000005\.ckpt") as caught:
            read()
        assert not isinstance(caught.value, DamagedCheckpointError)


def test_weights_that_are_not_numbers_are_refused_by_name(tmp_path: Path) -> None:
    class Pipeline(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._model = torch.nn.Linear(2, 2)
            self._model.register_buffer("far", torch.tensor(torch.inf))

        @property
        def model(self) -> torch.nn.Module:
            return self._model

    for wrong in (torch.nan, torch.inf, -torch.inf):  # an infinity may be right in a buffer, never in a parameter
        state = copy.deepcopy(Pipeline().state_dict())
        state["_model.bias"][1] = wrong
        with pytest.raises(RunError, match=r"a\.ckpt: bias holds 1 values that are not numbers"):
            load_weights(Pipeline(), state, 1, tmp_path / "a.ckpt", check_data_state=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (torch.zeros(3), "holds no `pipeline`"),
        ([1, 2], "holds no `pipeline`"),
        ({"state_dict": {}}, "holds no `pipeline`"),
        ({"pipeline": {}, "step": True}, "`step` is true"),
        ({"pipeline": {}, "step": -1}, "`step` is -1"),
        ({"pipeline": {}, "step": "3"}, "`step` is '3'"),
        ({"pipeline": {}, "step": 10**400}, "`step` is an integer|`step` is 1"),
        ({"pipeline": [1], "step": 3}, "no tensors by name"),
        ({"pipeline": {1: torch.zeros(1)}, "step": 3}, "no tensors by name"),
    ],
    ids=str,
)
def test_files_that_hold_something_else_are_refused(content: object, what: str, tmp_path: Path) -> None:
    path = tmp_path / "step-000000003.ckpt"
    torch.save(content, path)
    with pytest.raises(RunError, match=what) as caught:
        read_latest_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


class Touches:
    """A pickle that runs code."""

    def __init__(self, hit: Path) -> None:
        self.hit = hit

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.hit),)


def test_pickles_that_run_code_text_and_folders_are_refused(tmp_path: Path) -> None:
    path, hit = tmp_path / "step-000000003.ckpt", tmp_path / "hit"
    for content in ({"pipeline": Touches(hit), "step": 3}, Touches(hit)):
        torch.save(content, path)
        with pytest.raises(DamagedCheckpointError):
            read_checkpoint(path)
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DamagedCheckpointError):
            read_checkpoint(path)
    assert not hit.exists()
    path.write_text("step: 3")
    with pytest.raises(DamagedCheckpointError):
        read_checkpoint(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedCheckpointError):
        read_checkpoint(path)
