"""Fixtures shared by the tests: tiny data sets in two formats, and tiny trained runs on them."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_data import write_blender, write_dnerf, write_nerfstudio
from tiny_runs import train_dnerf, train_eugen, train_stock, train_unbounded

# the networks here are tiny: more threads only get in each other's way (torch reads it on its first import)
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer

LONGEST = (
    *("test_readme.py", "test_browser.py", "test_commands_on_device.py", "test_engine_in_browser.py"),
    *("test_gpu_day.py", "test_suite_whole.py", "test_module_teacher.py", "test_presets_on_device.py"),
    *("test_writes.py", "test_nerf_method.py"),
)
"""Files that take longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets the longest files begin first: one that came last would run while the other processes have nothing to do.

    pytest-xdist keeps this order with `--no-loadscope-reorder`; by itself it begins with the files of most tests.
    """
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """What has been imported by now stays: the collector of garbage need not look through it, 0.4 s each time."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _events_end_with_their_test() -> Iterator[None]:
    """Closes what trainings write events to: nerfstudio would write those of each later training there too."""
    yield
    if "nerfstudio.utils.writer" in sys.modules:
        from nerfstudio.utils import writer

        for each in writer.EVENT_WRITERS:
            if isinstance(each, writer.TensorboardWriter):
                each.tb_writer.close()
        writer.EVENT_WRITERS.clear()


@pytest.fixture(scope="session")
def tiny_blender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Blender-format data set: 4 training, 2 validation and 3 test views, 16x16 RGBA of a shaded disc."""
    return write_blender(tmp_path_factory.mktemp("tiny_blender"))


@pytest.fixture(scope="session")
def tiny_nerfstudio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in nerfstudio's format: 5 training, 2 validation, 3 test views, 16 x 12 RGB, one lens with distortion."""
    return write_nerfstudio(tmp_path_factory.mktemp("tiny_nerfstudio"))


@pytest.fixture(scope="session")
def tiny_dnerf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A D-NeRF-format data set: 6 training, 2 validation, 3 test views, 16x16 RGB on black of a disc that moves."""
    return write_dnerf(tmp_path_factory.mktemp("tiny_dnerf"))


@pytest.fixture(scope="session")
def tiny_stock_dnerf_run(tiny_dnerf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config.yml of a stock ``dnerf`` run: two iterations, on the CPU."""
    return train_stock(tiny_dnerf, tmp_path_factory.mktemp("stock_dnerf_run"), method="dnerf")


@pytest.fixture(scope="session")
def tiny_dense_dnerf_run(tiny_dnerf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config.yml of a dense ``eugen-dnerf-small`` run, two iterations with narrow networks, on the CPU."""
    return train_dnerf(tiny_dnerf, tmp_path_factory.mktemp("dense_dnerf_run"), variant="dense")[0]


@pytest.fixture(scope="session")
def train_tiny_dnerf(tiny_dnerf: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Trainer]]:
    """`train_dnerf` on the tiny dynamic data set, into a folder of its own each time."""

    def train(**settings: Any) -> tuple[Path, Trainer]:
        return train_dnerf(tiny_dnerf, tmp_path_factory.mktemp("tiny_dnerf_run"), **settings)

    return train


@pytest.fixture(scope="session")
def tiny_stock_run(tiny_blender: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config.yml of a stock ``vanilla-nerf`` run: two iterations of 32 rays with 8 + 8 samples, on the CPU."""
    return train_stock(tiny_blender, tmp_path_factory.mktemp("stock_run"))


@pytest.fixture(scope="session")
def second_stock_run(tiny_blender: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_stock_run`, from another seed."""
    return train_stock(tiny_blender, tmp_path_factory.mktemp("second_stock_run"), seed=1)


@pytest.fixture(scope="session")
def tiny_eugen_run(tiny_blender: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config.yml of an ``eugen-nerf-small`` run, two iterations with a narrow network, on the CPU."""
    return train_eugen(tiny_blender, tmp_path_factory.mktemp("eugen_run"))[0]


@pytest.fixture(scope="session")
def tiny_dense_run(tiny_blender: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_eugen_run`, its dense twin."""
    return train_eugen(tiny_blender, tmp_path_factory.mktemp("dense_run"), variant="dense")[0]


@pytest.fixture(scope="session")
def train_tiny(tiny_blender: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Trainer]]:
    """`train_eugen` on the tiny data set, into a folder of its own each time."""

    def train(**settings: Any) -> tuple[Path, Trainer]:
        return train_eugen(tiny_blender, tmp_path_factory.mktemp("tiny_run"), **settings)

    return train


@pytest.fixture(scope="session")
def train_tiny_unbounded(
    tiny_blender: Path, tiny_nerfstudio: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Trainer]]:
    """`train_unbounded` on the set in nerfstudio's format, or on the Blender one where asked; a folder each time."""

    def train(*, blender: bool = False, **settings: Any) -> tuple[Path, Trainer]:
        data = tiny_blender if blender else tiny_nerfstudio
        return train_unbounded(data, tmp_path_factory.mktemp("tiny_unbounded"), **settings)

    return train


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
