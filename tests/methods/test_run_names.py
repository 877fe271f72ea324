"""Where a run is written: names that lead elsewhere, and places that cannot be written, end before anything is made."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from nerfstudio.configs.method_configs import all_methods

from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.run_writer import set_output_dir
from eugen_nerf.core.errors import EugenError
from eugen_nerf.methods.trainer import EugenTrainerConfig

BAD = ["../../up", "..", "/tmp/up", "a/b", "", "a\nb", "x" * 300]


def config_in(folder: Path) -> EugenTrainerConfig:
    config = deepcopy(all_methods["eugen-nerf-small"])
    assert isinstance(config, EugenTrainerConfig)
    config.output_dir, config.experiment_name, config.timestamp = folder / "out", "tiny", "t"
    return config


@pytest.mark.parametrize("bad", BAD, ids=ascii)
@pytest.mark.parametrize("name", ["experiment_name", "method_name", "timestamp"])
def test_training_is_refused_before_its_folder_is_made(name: str, bad: str, tmp_path: Path) -> None:
    config = config_in(tmp_path)
    setattr(config, name, bad)
    with pytest.raises(EugenError, match=f"--{name.replace('_', '-')} ") as caught:
        config.save_config()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", BAD, ids=ascii)
@pytest.mark.parametrize("name", ["experiment_name", "method_name", "timestamp"])
def test_a_converted_run_is_not_led_elsewhere_by_its_teacher(name: str, bad: str, tmp_path: Path) -> None:
    """The names of a stranger's config.yml: a conversion takes over the experiment's and the method's."""
    trainer = config_in(tmp_path)
    setattr(trainer, name, bad)
    given = DistillConfig(timestamp=bad if name == "timestamp" and bad else None)
    if (name, bad) in (("timestamp", ""), ("experiment_name", "..")):
        set_output_dir(trainer, given)  # the present time; "..-distilled" leads nowhere
        return
    with pytest.raises(EugenError, match="cannot name a folder"):
        set_output_dir(trainer, given)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    config = config_in(tmp_path)
    with pytest.raises(EugenError, match="--output-dir"):
        config.save_config()
    with pytest.raises(EugenError, match="--output-dir"):
        set_output_dir(config, DistillConfig())
    assert (tmp_path / "out").read_text() == "a file"


def test_data_in_the_working_folder_name_the_run_as_the_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lego").mkdir()
    monkeypatch.chdir(tmp_path / "lego")
    config = config_in(tmp_path)
    for data, name in ((Path(), "lego"), (Path(".."), tmp_path.name), (Path("../lego"), "lego")):
        config.experiment_name, config.pipeline.datamanager.data = None, data
        config.save_config()
        assert (tmp_path / "out" / name / "eugen-nerf-small" / "t" / "config.yml").is_file()
