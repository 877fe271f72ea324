"""Checkpoint files: what nerfstudio's need beyond plain ``torch.load``, ``torch.save`` and ``load_state_dict``."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils.rich_utils import CONSOLE
from torch import nn

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.checks.names import shown
from eugen_nerf.core.errors import RunError

_OUT_OF_MEMORY = ("not enough memory", "cannot allocate memory", "can't allocate memory", "out of memory")
_MOST_STEPS = 1 << 40
_CHECKPOINT_NAME = re.compile(r"step-(\d+)\.ckpt")


def allow_numpy_scalars() -> None:
    """Let ``torch.load(..., weights_only=True)`` read NumPy float64 scalars.

    nerfstudio's exponential scheduler stores its learning rates as ``np.float64``, and torch 2.6 and later refuse such
    a checkpoint (nerfstudio#3683). Three names are allowed, all of them plain data: the scalar constructor, in the
    spelling of NumPy 1 (``numpy.core``) and of NumPy 2 (``numpy._core``); ``numpy.dtype``; the class of the float64
    dtype. Nothing that can run code is added. Calling it again changes nothing; torch without
    ``torch.serialization.add_safe_globals`` (before 2.4) has nothing to allow, and nothing happens.
    """
    add_safe_globals = getattr(torch.serialization, "add_safe_globals", None)
    if add_safe_globals is None:
        return
    # A float64 scalar unpickles to scalar(dtype, bytes): the constructor is reached from the value itself, because the
    # module that holds it has moved between NumPy 1 and 2.
    constructor = np.float64(0.0).__reduce__()[0]
    add_safe_globals([constructor, np.dtype, type(np.dtype(np.float64))])
    if _takes_renamed_globals():
        add_safe_globals(
            [(constructor, "numpy.core.multiarray.scalar"), (constructor, "numpy._core.multiarray.scalar")]
        )


def _takes_renamed_globals() -> bool:
    """Whether ``add_safe_globals`` takes (object, name) pairs: torch 2.6; before, a pair breaks every later load."""
    major, minor = torch.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (2, 6)


def atomic_torch_save(obj: Any, path: Path) -> None:
    """Write ``obj`` with ``torch.save`` so that ``path`` is always absent, the old file or the whole new file.

    The bytes go to a temporary name in the same folder, are flushed to the disk, and then take the final name in one
    step (`core/atomic_paths.py`). An interrupted write leaves no file under ``path`` that a loader could take for a
    checkpoint.

    Args:
        obj: what ``torch.save`` can write.
        path: the file to write; its folder must exist.

    Raises:
        RunError: the file cannot be written (no space, no permission, no such folder); the temporary is removed.
    """
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        # Stock loaders read a number from every name in the folder and take the highest: with this prefix it is 0, so
        # that what a killed process leaves behind is never taken for a checkpoint.
        with atomic_path(path, replace=True, prefix="tmp-0.") as temporary, temporary.open("wb") as file:
            torch.save(obj, file)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a failed write into RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RunError(f"cannot write {path}: {reason}; free some space or choose another folder") from error


def checkpoint_files(folder: Path) -> list[Path]:
    """The checkpoints (step-*.ckpt) in a folder by their steps; none where there is no folder."""
    steps = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        match = _CHECKPOINT_NAME.fullmatch(file.name)
        if match:
            steps[int(match[1])] = file
    return [steps[step] for step in sorted(steps)]


class DamagedCheckpointError(RunError):
    """A checkpoint that was cut off or changed: one before it may be whole."""


def read_latest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest whole checkpoint in ``folder``, and its content on the CPU; says which newer ones are damaged.

    Raises:
        RunError: there is none, none is whole, or memory does not hold it.
    """
    files = checkpoint_files(folder)
    if not files:
        raise RunError(f"no checkpoint (step-*.ckpt) in {folder}: train the run further, or copy that folder as well")
    for path in reversed(files):
        try:
            return path, read_checkpoint(path)
        except DamagedCheckpointError as error:
            if path == files[0]:
                raise
            CONSOLE.print(f"{error}; the one before it is taken", markup=False, highlight=False, soft_wrap=True)
    raise AssertionError("unreachable")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        DamagedCheckpointError: it was cut off or changed.
        RunError: memory does not hold it, or it is no checkpoint of nerfstudio's.
    """
    allow_numpy_scalars()
    try:
        # torch before 2.4 cannot read NumPy scalars safely: there a checkpoint is a pickle, which can run code.
        safe = hasattr(torch.serialization, "add_safe_globals")
        state = torch.load(path, map_location="cpu", weights_only=safe)
    except Exception as error:  # a damaged archive or pickle can raise anything
        if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY):
            raise RunError(
                f"memory does not hold checkpoint {path} ({path.stat().st_size / 2**20:.0f} MB): close other programs, "
                "or raise the limit (ulimit -v)"
            ) from error
        raise DamagedCheckpointError(
            f"checkpoint {path} cannot be read (truncated or damaged?): {first_line(error)}"
        ) from error
    if not isinstance(state, dict) or not {"pipeline", "step"} <= set(state):
        raise RunError(f"{path} is not a nerfstudio checkpoint: it holds no `pipeline` and `step`")
    step, weights = state["step"], state["pipeline"]
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < _MOST_STEPS:
        raise RunError(f"{path} is not a nerfstudio checkpoint: its `step` is {shown(step)}, not a number of steps")
    if not isinstance(weights, Mapping) or not all(isinstance(key, str) for key in weights):
        raise RunError(f"{path} is not a nerfstudio checkpoint: its `pipeline` holds no tensors by name")
    return state


def load_weights(
    pipeline: Pipeline, saved: Mapping[str, Any], step: int, path: Path, *, check_data_state: bool
) -> None:
    """Load a checkpoint's tensors into a pipeline, all but those of LPIPS.

    Args:
        pipeline: built from the run's config.
        saved: the checkpoint's ``pipeline``: tensors by name.
        step: the checkpoint's step; set first on models that grow with training.
        path: the checkpoint's file, for messages.
        check_data_state: whether tensors outside of the model have to match as well.

    Raises:
        RunError: any tensor is missing, unexpected or of another shape, or holds values that are not numbers.
    """
    state = {key.removeprefix("module."): value for key, value in saved.items()}
    model_state = {key.removeprefix("_model."): value for key, value in state.items() if key.startswith("_model.")}
    if model_state and all(key.startswith("module.") for key in model_state):  # trained on several GPUs
        model_state = {key.removeprefix("module."): value for key, value in model_state.items()}
    data_state = {key: value for key, value in state.items() if not key.startswith("_model.")}

    model = pipeline.model
    _check_finite(model_state, {name for name, _ in model.named_parameters()}, path)
    model.update_to_step(step)
    own = model.state_dict()
    model_state = {key: value for key, value in model_state.items() if "lpips." not in key}
    model_state.update({key: value for key, value in own.items() if "lpips." in key})
    if wrong := _other_kinds(own, model_state):
        raise _other_architecture(path, wrong)
    try:
        model.load_state_dict(model_state, strict=True)
    except Exception as error:  # our own models raise RunError, others what they like
        differences = _differences(own, model_state) or [first_line(error)]
        raise _other_architecture(path, differences) from error

    own = {key: value for key, value in pipeline.state_dict().items() if not key.startswith("_model.")}
    if not data_state:  # a converted run has weights alone: its data manager starts anew
        own = {}
    differences = _differences(own, data_state) if check_data_state else []
    if differences:
        raise _other_architecture(path, differences)
    if check_data_state and data_state:
        try:  # the model's tensors are in place already
            nn.Module.load_state_dict(pipeline, data_state, strict=False)
        except Exception as error:  # the state of a data manager is of any form
            raise RunError(f"checkpoint {path}: the state of the data cannot be read: {first_line(error)}") from error


def _check_finite(state: Mapping[str, Any], parameters: Collection[str], path: Path) -> None:
    """Raises `RunError` for the first tensor with NaN in it, or parameter with an infinity: images would be wrong."""
    for key, value in state.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.layout != torch.strided:
            continue
        wrong = ~value.isfinite() if key in parameters else value.isnan()
        if bool(wrong.any()):
            raise RunError(
                f"checkpoint {path}: {key} holds {int(wrong.sum())} values that are not numbers (NaN or infinite): the "
                "training diverged; train again with a lower rate, or keep an older checkpoint alone in that folder"
            )


def _differences(own: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """One text for each tensor that is missing, unexpected or of another shape."""
    mismatches = [f"{key} (missing)" for key in own if key not in saved]
    mismatches += [f"{key} (unexpected)" for key in saved if key not in own]
    for key in own:
        mine, theirs = getattr(own[key], "shape", None), getattr(saved.get(key), "shape", None)
        if key in saved and mine != theirs:
            mismatches.append(f"{key} ({_size(theirs)} in the checkpoint, {_size(mine)} in the model)")
    return mismatches


def _other_kinds(own: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """One text for each tensor whose numbers torch would convert into another kind and say nothing."""
    kinds = {key: (_kind(own[key]), _kind(value)) for key, value in saved.items() if key in own}
    return [
        f"{key} ({theirs} in the checkpoint, {mine} in the model)"
        for key, (mine, theirs) in kinds.items()
        if mine != theirs
    ]


def _kind(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return "no tensor"
    if value.layout != torch.strided or value.is_quantized:
        return "sparse or quantized"
    return "complex" if value.is_complex() else "real" if value.is_floating_point() else "whole numbers"


def _other_architecture(path: Path | None, differences: list[str]) -> RunError:
    which = "the checkpoint" if path is None else f"checkpoint {path}"
    more = ", ..." if len(differences) > 3 else ""
    return RunError(
        f"{which} is of another architecture: {len(differences)} tensors differ: {', '.join(differences[:3])}{more}; "
        "load it with the settings it was trained with"
    )


def _size(shape: Any) -> str:
    return "no tensor" if shape is None else str(list(shape))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none: messages here are one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def architecture_mismatch(module: nn.Module, state: Mapping[str, Any]) -> RunError:
    """The error that says how the names and shapes in ``state`` differ from a module's own."""
    return _other_architecture(None, _differences(module.state_dict(), state))
