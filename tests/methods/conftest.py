"""What the tests of the real commands share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment without any torch weights on disk, where every download fails at once."""
    nowhere = "http://127.0.0.1:9"
    torch_home, programs = tmp_path_factory.mktemp("torch_home"), tmp_path_factory.mktemp("programs")
    # ns-render asks for ffmpeg even where it writes images, and never calls it then
    (programs / "ffmpeg").write_text("#!/bin/sh\nexit 1\n")
    (programs / "ffmpeg").chmod(0o755)
    return {
        **os.environ,
        "TORCH_HOME": str(torch_home),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], str(programs)]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONWARNINGS": "ignore",
        "COLUMNS": "200",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
    }
