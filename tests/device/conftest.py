"""Data sets and runs that the tests of the pretended device share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from preset_runs import train_preset, write_data

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer
    from pretend import Counts


@pytest.fixture(scope="session")
def device_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny data set of each kind, as `preset_runs.write_data` names them."""
    return write_data(tmp_path_factory.mktemp("device_data"))


@pytest.fixture(scope="session")
def trained(
    device_data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[Trainer, Counts]]:
    """`train_preset` of a preset and a variant, once a session."""
    output = tmp_path_factory.mktemp("device_runs")
    return cache(lambda preset, variant: train_preset(preset, variant, device_data, output))


@pytest.fixture(scope="session")
def device_run(trained: Callable[[str, str], tuple[Trainer, Counts]]) -> Callable[[str, str], Path]:
    """The config.yml of such a run."""
    return lambda preset, variant: trained(preset, variant)[0].config.get_base_dir() / "config.yml"
