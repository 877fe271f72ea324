"""A run whose bundle is still to be made: a note among the runs, from before the run is written until both are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from eugen_nerf.conversion.bundle_scene import bundle_of_run
from eugen_nerf.core import save_bundle
from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.bundle_schema import BundleError
from eugen_nerf.core.errors import EugenError, RunError
from eugen_nerf.methods.runs.loading import Run


class PendingBundle:
    """The note of one command.

    Args:
        runs: folder of runs.
        command: all that the run depends on; its `repr` is its name.
    """

    def __init__(self, runs: Path, command: object) -> None:
        digest = hashlib.sha256(repr(command).encode()).hexdigest()[:16]
        self._path = runs / f".bundle-{digest}.json"

    def run(self) -> Path | None:
        """The `config.yml` of a run that this command wrote and made no bundle of; None where there is no such run."""
        try:
            config = Path(json.loads(self._path.read_text(encoding="utf8"))["run"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return config if config.is_file() else None

    def note(self, config: Path) -> None:
        """Keeps that a run will be written there, whose bundle follows; raises `RunError` where that cannot be."""
        try:
            with atomic_path(self._path, replace=True) as partial:
                partial.write_text(json.dumps({"run": str(config.absolute())}), encoding="utf8")
        except OSError as error:
            raise RunError(f"cannot write {self._path}: {error.strerror or error}; free some space") from error

    def make(self, run: Run, place: Path, *, onnx: bool, progress: Callable[[str], None]) -> None:
        """Makes the bundle of the run and removes the note.

        Args:
            run: as it was written, with its training and test views.
            place: of the bundle.
            onnx: whether each network is written as ONNX as well.
            progress: see `bundle_of_run`.

        Raises:
            BundleError: it cannot be made; the note stays.
        """
        try:
            save_bundle(bundle_of_run(run, progress=progress), place, onnx=onnx)
        except EugenError as error:
            raise BundleError(
                f"the run is written, {run.path}, and its bundle is not: {error}; the same command, started again, "
                "makes the bundle without converting again"
            ) from error
        self._path.unlink(missing_ok=True)
