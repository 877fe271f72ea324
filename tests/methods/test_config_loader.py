"""The loader of `config.yml`: what it builds equals what yaml.Loader builds, and nothing that a file names is run."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from golden_outputs import GOLDEN, golden_runs
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.trainer import TrainerConfig

from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.runs.config_loader import RefusedConfigError, load_config
from eugen_nerf.methods.runs.loading import read_config

OURS = sorted(name for name in all_methods if name.startswith("eugen-"))
STOCK = sorted(set(all_methods) - set(OURS))


def same_as_yaml(text: str) -> None:
    assert yaml.dump(load_config(text)) == yaml.dump(yaml.load(text, Loader=yaml.Loader))


@pytest.mark.parametrize("names", [OURS, STOCK[::2], STOCK[1::2]], ids=["ours", "stock-even", "stock-odd"])
def test_every_registered_method_is_read_as_yaml_reads_it(names: list[str]) -> None:
    assert names
    for name in names:
        same_as_yaml(yaml.dump(all_methods[name]))


def test_runs_of_every_family_are_read_as_yaml_reads_them() -> None:
    paths = golden_runs(GOLDEN).values()
    assert len(paths) >= 10
    for path in paths:
        same_as_yaml(path.read_text(encoding="utf8"))


TRAINER = "!!python/object:nerfstudio.engine.trainer.TrainerConfig\n"
MODEL = "!!python/object:nerfstudio.models.nerfacto.NerfactoModelConfig\n"
HOSTILE = {
    "call": "!!python/object/apply:os.system ['touch {hit}']",
    "call with keywords": "!!python/object/apply:subprocess.run {{args: [['touch', {hit}]]}}",
    "call of ours": "!!python/object/apply:eugen_nerf.methods.runs.checkpoints.atomic_torch_save [1, {hit}]",
    "call of a class": "!!python/object/apply:nerfstudio.data.scene_box.SceneBox [1]",
    "new": "!!python/object/new:os.system ['touch {hit}']",
    "new class": "!!python/object/new:nerfstudio.engine.trainer.TrainerConfig {{state: {{}}}}",
    "module": "!!python/module:os",
    "name": "!!python/name:os.system",
    "name in a module": "!!python/name:nerfstudio.engine.trainer.os.system",
    "name of a builtin": "!!python/name:eval",
    "name of a script": "!!python/name:nerfstudio.scripts.train.entrypoint",
    "name of a function": "!!python/name:nerfstudio.engine.trainer.check_main_thread",
    "foreign class through ours": "!!python/name:nerfstudio.engine.trainer.Path",
    "dunder": "!!python/name:nerfstudio.engine.trainer.__builtins__",
    "function of torch.optim": "!!python/name:torch.optim.adam.adam",
    "object of another package": "!!python/object:subprocess.Popen {{args: ['touch', {hit}]}}",
    "object that is no configuration": "!!python/object:nerfstudio.engine.trainer.Trainer {{}}",
    "subscript of an object": "!!python/object/apply:operator.getitem [{{a: 1}}, a]",
    "subscript by an object": (
        "!!python/object/apply:operator.getitem\n"
        "- !!python/name:nerfstudio.data.datamanagers.base_datamanager.VanillaDataManager\n- {{}}"
    ),
    "unknown field": TRAINER + "  hook: 1",
    "special attribute": TRAINER + "  __class__: 1",
    "no member": "!!python/object/apply:nerfstudio.utils.writer.EventName ['x']",
    "target of another kind": MODEL + "  _target: !!python/name:nerfstudio.engine.trainer.Trainer",
    "target that is no class": (
        MODEL + "  _target: !!python/name:nerfstudio.data.utils.nerfstudio_collate.nerfstudio_collate"
    ),
    "wrong type": MODEL + "  near_plane: [1, 2]",
    "nested wrong type": TRAINER + "  optimizers: {{fields: 3}}",
    "unknown tag": "!mine 3",
    "other python tag": "!!python/bytes 'aaaa'",
    "deep": "[" * 3000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_and_run_nothing(kind: str, tmp_path: Path) -> None:
    hit = tmp_path / "hit"
    with pytest.raises((RefusedConfigError, yaml.YAMLError)):
        load_config(HOSTILE[kind].format(hit=hit))
    assert not hit.exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_part_of_a_whole_configuration_is_refused(kind: str, tmp_path: Path) -> None:
    """Wherever it stands: here in the place of the data set's path."""
    hit = tmp_path / "hit"
    text = yaml.dump(all_methods["eugen-nerf-small"])
    hostile = HOSTILE[kind].format(hit=hit).replace("\n", "\n  ")
    changed = text.replace("\ndata: null\n", f"\ndata: {hostile}\n", 1)
    assert changed != text
    with pytest.raises((RefusedConfigError, yaml.YAMLError)):
        load_config(changed)
    assert not hit.exists()


def test_post_init_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    config = all_methods["eugen-nerf-small"]
    text = yaml.dump(config)
    ran = []
    monkeypatch.setattr(
        type(config.pipeline.datamanager), "__post_init__", lambda self: ran.append(self), raising=False
    )
    load_config(text)
    dataclasses.replace(config.pipeline.datamanager)  # the hook is in place
    assert len(ran) == 1


def test_refusals_name_the_tag_and_the_way_out(tmp_path: Path) -> None:
    path, hit = tmp_path / "config.yml", tmp_path / "hit"
    path.write_text(f"{TRAINER}  method_name: !!python/object/apply:os.makedirs ['{hit}']\n", encoding="utf8")
    with pytest.raises(RunError, match=r"calls os\.makedirs; .*--trust-config"):
        read_config(path)
    assert not hit.exists()
    assert isinstance(read_config(path, trust=True), TrainerConfig)
    assert hit.is_dir()  # what nerfstudio's own loader does
