"""Layers that a conversion has done, kept on disk until it is complete."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eugen_nerf.core import LayerReport
from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.distributed import process_index
from eugen_nerf.core.errors import RunError


class FolderStore:
    """Layers as safetensors files in a folder, one field's in it.

    Args:
        folder: where they are; made when the first layer is kept.
        field: name of the field.
    """

    def __init__(self, folder: Path, field: str) -> None:
        self.folder, self.field = folder, field

    def load(self, name: str) -> tuple[dict[str, Tensor], LayerReport] | None:
        """A layer's state and report; a file that is damaged counts as none."""
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                report = json.loads(file.metadata()["report"])
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            pairs = {key: tuple(value) for key, value in report.items() if isinstance(value, list)}
            return state, LayerReport(**{**report, **pairs})
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, name: str, state: Mapping[str, Tensor], report: LayerReport) -> None:
        """Keeps a layer, written under another name and renamed; of several processes the first one does it.

        Raises:
            RunError: the folder cannot be written to.
        """
        if process_index():
            return
        path = self._path(name)
        try:
            tensors = {key: value.contiguous().cpu() for key, value in state.items()}
            with atomic_path(path, replace=True) as partial:
                save_file(tensors, partial, metadata={"report": json.dumps(asdict(report))})
        except (OSError, SafetensorError) as error:
            raise RunError(f"cannot keep a converted layer in {self.folder}: {error}") from error

    def _path(self, name: str) -> Path:
        return self.folder / f"{self.field}.{name}.safetensors"


def store_folder(runs: Path, key: object) -> Path:
    """The folder for one piece of work among the runs; `key` says all that its result depends on."""
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    return runs / f".distill-{digest}"


def discard(folder: Path) -> None:
    """Removes a folder of kept layers: the work is complete."""
    if process_index() == 0:
        shutil.rmtree(folder, ignore_errors=True)
