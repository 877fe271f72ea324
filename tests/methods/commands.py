"""The real commands, as they are typed, where no weights are at hand and nothing can be downloaded."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from nerfstudio.engine.trainer import TrainerConfig


def command(environment: dict[str, str], *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; it must succeed unless `check` is off."""
    done = subprocess.run([str(w) for w in words], env=environment, capture_output=True, text=True, timeout=240)
    if check:
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
    """How many steps the optimizer of a group has made, by its parameters."""
    return {float(state["step"]) for state in checkpoint["optimizers"][group]["state"].values()}


def viewer_page(run: Path, environment: dict[str, str], log: Path) -> bytes:
    """What ``ns-viewer`` answers for a run; empty where it ends or two minutes pass before it does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["ns-viewer", "--load-config", str(run), "--viewer.websocket-host", "127.0.0.1"]
    words += ["--viewer.websocket-port", str(port)]
    with log.open("w") as file:
        process = subprocess.Popen(words, env=environment, stdout=file, stderr=file, start_new_session=True)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            try:
                with opener.open(f"http://127.0.0.1:{port}/", timeout=5) as response:
                    assert response.status == 200
                    return response.read()
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        return b""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
