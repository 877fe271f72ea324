"""The real commands, as they are typed, where no weights are at hand and nothing can be downloaded."""

from __future__ import annotations

import atexit
import json
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
import yaml
from nerfstudio.engine.trainer import TrainerConfig


@cache
def _server() -> subprocess.Popen[bytes]:
    """`command_server.py`, for as long as this process runs: importing nerfstudio takes most of a command's time."""
    words = [sys.executable, str(Path(__file__).with_name("command_server.py"))]
    quiet = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=quiet, bufsize=0)
    atexit.register(server.communicate)
    return server


class Running:
    """A command of nerfstudio or of this package, one at a time.

    Args:
        environment: of its process.
        words: as they are typed.
        folder: takes what it prints.
    """

    def __init__(self, environment: dict[str, str], words: Sequence[object], folder: Path) -> None:
        self.words, self._files = [str(w) for w in words], [folder / "output", folder / "errors"]
        request = json.dumps([self.words, environment, *map(str, self._files)])
        assert _server().stdin.write(f"{request}\n".encode())  # type: ignore[union-attr]
        self._process = int(self._line())

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or does so within some time."""
        return bool(select.select([_server().stdout], [], [], seconds)[0])

    def kill(self) -> None:
        """Ends it at once, with all that it started."""
        os.killpg(self._process, signal.SIGKILL)

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Waits for its end, at most four minutes."""
        if not self.ended(240):
            self.kill()
        status = int(self._line())
        return subprocess.CompletedProcess(self.words, status, *(file.read_text() for file in self._files))

    @staticmethod
    def _line() -> bytes:
        line = _server().stdout.readline()  # type: ignore[union-attr]
        assert line, "the server of commands ended"
        return line


def command(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; it must succeed."""
    with tempfile.TemporaryDirectory() as folder:
        done = Running(environment, words, Path(folder)).finish()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def train_words(method: str, output: Path, timestamp: str, settings: dict[str, object]) -> list[object]:
    """``ns-train`` for two iterations of few rays; `settings` are the model's. A data parser's words may follow."""
    words: list[object] = ["ns-train", method, "--vis", "tensorboard", "--machine.device-type", "cpu"]
    words += ["--output-dir", output, "--experiment-name", "shell", "--timestamp", timestamp]
    words += ["--max-num-iterations", 2, "--pipeline.datamanager.train-num-rays-per-batch", 32]
    for name, value in settings.items():
        words += [f"--pipeline.model.{name}", *(value if isinstance(value, tuple) else (value,))]
    return words


def optimizer_steps(checkpoint: dict, group: str) -> set[float]:
    """How many steps the optimizer of a group has made, by its parameters; Adam's, where Muon moves the matrices."""
    state = checkpoint["optimizers"][group]
    return {float(s["step"]) for s in state.get("adam", state)["state"].values()}


def viewer_page(run: Path, environment: dict[str, str], folder: Path) -> bytes:
    """What ``ns-viewer`` answers for a run; empty where it ends or two minutes pass before it does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["ns-viewer", "--load-config", run, "--viewer.websocket-host", "127.0.0.1"]
    running = Running(environment, [*words, "--viewer.websocket-port", port], folder)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and not running.ended():
            try:
                with opener.open(f"http://127.0.0.1:{port}/", timeout=5) as response:
                    assert response.status == 200
                    return response.read()
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        return b""
    finally:
        if not running.ended():
            running.kill()
        running.finish()


def changed_copy(path: Path, folder: Path, change: Callable[[TrainerConfig], None]) -> Path:
    """The config.yml of a copy of a run, with another configuration beside the same checkpoint."""
    config = yaml.load(path.read_text(), Loader=yaml.Loader)
    config.output_dir = folder
    change(config)
    shutil.copytree(path.parent, config.get_base_dir())
    changed = config.get_base_dir() / "config.yml"
    changed.write_text(yaml.dump(config))
    return changed


def needs_numpy_scalars(checkpoint: Path) -> bool:
    """Whether torch, as it comes, refuses the checkpoint because of them."""
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        torch.load(checkpoint, weights_only=True)
    except pickle.UnpicklingError as error:
        return "multiarray.scalar" in str(error)
    else:
        return False
    finally:
        torch.serialization.add_safe_globals(allowed)
