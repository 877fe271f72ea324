"""Stock runs converted layer by layer: mipnerf and nerfacto keep what is not converted, load, render and train on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.data.datamanagers import parallel_datamanager
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.eval_utils import eval_setup
from tiny_runs import render, train_stock
from torch import Tensor, nn

from eugen_nerf.conversion.distill import write_run
from eugen_nerf.conversion.modules import StockConfig, _ask, _ask_fields, convert_stock
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.hidden import Linears, find_hidden
from eugen_nerf.core.narrowing import Weighted
from eugen_nerf.methods.checkpoints import read_latest_checkpoint
from eugen_nerf.methods.converted import ConvertedPipeline, resize
from eugen_nerf.methods.runs import Run, load_run, read_config, without_lpips

RAYS: dict[str, Any] = {"ray_fraction": 1.0, "max_rays": 384}
HIDDEN = {
    "nerfacto": ["field.mlp_base.model.1.layers.0", "field.mlp_head.layers.0", "field.mlp_head.layers.1"],
    "mipnerf": [*(f"field.mlp_base.layers.{i}" for i in range(8)), *(f"field.mlp_head.layers.{i}" for i in range(2))],
}
SOME = {"nerfacto": ("field.*",), "mipnerf": (r"field.mlp_base.layers.[37]", "field.mlp_head.layers.0")}
"""Patterns for what is converted here: mipnerf's layers are always 256 wide, and all of them take their time."""
CONVERTED = {"nerfacto": HIDDEN["nerfacto"], "mipnerf": [HIDDEN["mipnerf"][i] for i in (3, 7, 8)]}


class _InThread(parallel_datamanager.DataProcessor):  # type: ignore[misc, valid-type]
    """Makes batches in a thread: each process would import everything anew."""

    def start(self) -> None:
        threading.Thread(target=self.run, daemon=True).start()

    def terminate(self) -> None:
        """The thread ends with the tests."""

    def join(self, timeout: float | None = None) -> None:
        """As above."""


@pytest.fixture(autouse=True, scope="module")
def _no_processes() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel_datamanager, "DataProcessor", _InThread)
        yield


def _shrink(config: TrainerConfig) -> None:
    config.mixed_precision = False  # as a CPU needs it
    manager, model = config.pipeline.datamanager, config.pipeline.model
    manager.queue_size = 1
    if config.method_name == "mipnerf":
        model.num_coarse_samples = model.num_importance_samples = 4
        return
    model.implementation = "torch"
    model.num_proposal_samples_per_ray, model.num_nerf_samples_per_ray = (8, 8), 6
    model.hidden_dim = model.hidden_dim_color = 24
    model.num_levels, model.max_res, model.log2_hashmap_size, model.appearance_embed_dim = 4, 64, 9, 5
    model.proposal_net_args_list = [{"hidden_dim": 12, "log2_hashmap_size": 8, "num_levels": 2, "max_res": 32}]


@pytest.fixture(scope="module", params=["nerfacto", "mipnerf"])
def teacher(request: pytest.FixtureRequest, tiny_nerfstudio: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A stock run, two iterations on the CPU."""
    folder = tmp_path_factory.mktemp(request.param)
    path = train_stock(tiny_nerfstudio, folder, method=request.param, change=_shrink)
    return load_run(path, device="cpu", test_mode="val")


def colours(model: nn.Module, run: Run) -> Tensor:
    outputs = render(model, run.pipeline)
    return outputs["rgb" if "rgb" in outputs else "rgb_fine"]


def test_full_width_renders_as_the_teacher(teacher: Run) -> None:
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    expected = colours(teacher.model, teacher)
    method = teacher.config.method_name
    _, student, reports = convert_stock(teacher, StockConfig(layers=SOME[method], num_features=1.0, **RAYS))
    assert [layer.name for report in reports.values() for layer in report.layers] == CONVERTED[method]
    assert expected.std() > 1e-4
    torch.testing.assert_close(colours(student, teacher), expected, rtol=1e-3, atol=1e-3)
    after = teacher.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert "forward" not in vars(teacher.model.field)


def test_written_run_loads_renders_alike_and_trains_on(teacher: Run, tmp_path: Path) -> None:
    method = teacher.config.method_name
    trainer, student, reports = convert_stock(teacher, StockConfig(layers=SOME[method], num_features=0.25, **RAYS))
    (report,) = reports.values()
    assert report.multiply_adds[1] < report.multiply_adds[0]
    assert report.parameters[1] < report.parameters[0]
    names = CONVERTED[method]
    old, new = dict(teacher.model.named_modules()), dict(student.named_modules())
    for name in names:
        assert type(new[name]) is nn.Linear
        assert new[name].out_features == old[name].out_features // 4
    # what is not converted is the teacher's: embeddings, grids, proposals, camera optimisation
    touched = tuple(f"{name}." for name in report.linears)
    kept = {k: v for k, v in student.state_dict().items() if not k.startswith(touched)}
    assert all(torch.equal(value, teacher.model.state_dict()[key]) for key, value in kept.items())
    if teacher.config.method_name == "nerfacto":
        assert {"camera_optimizer.pose_adjustment", "field.embedding_appearance.embedding.weight"} <= set(kept)

    trainer.output_dir, trainer.experiment_name, trainer.timestamp = tmp_path, "converted", "now"
    path = write_run(trainer, student, teacher.step)
    again = load_run(path, device="cpu", test_mode="val")
    expected = colours(student, teacher)
    assert torch.equal(colours(again.model, again), expected)
    assert (expected - colours(teacher.model, teacher)).abs().max() > 1e-6
    with without_lpips():
        stock = eval_setup(path, test_mode="val")[1]
    assert type(stock) is ConvertedPipeline
    assert torch.equal(colours(stock.model, again), expected)

    config = read_config(path)
    config.max_num_iterations, config.steps_per_save = 2, 1000
    going = config.setup(local_rank=0, world_size=1)
    with torch.random.fork_rng(devices=[]), without_lpips():
        going.setup()
        assert torch.equal(colours(going.pipeline.model, again), expected)
        going.pipeline.train()
        going.train()
    step, checkpoint = going.step, read_latest_checkpoint(going.checkpoint_dir)[1]
    assert step == checkpoint["step"] == teacher.step + 2
    trained = checkpoint["pipeline"][f"_model.{names[0]}.weight"]
    assert trained.shape == new[names[0]].weight.shape
    assert not torch.equal(trained, new[names[0]].weight)

    # and a converted run can be converted further
    second, twice, _ = convert_stock(again, StockConfig(layers=(names[-1],), num_features=4, **RAYS))
    assert twice.get_submodule(names[-1]).out_features == 4
    assert second.pipeline.linears[names[0]] == again.config.pipeline.linears[names[0]]
    assert second.pipeline.linears[names[-1]][1] == 4


def test_every_hidden_layer_is_found(teacher: Run) -> None:
    model = teacher.model
    asked = _ask_fields(model, ["field"], teacher, StockConfig(**RAYS))["field"]
    question = asked[0].batch if isinstance(asked[0], Weighted) else asked[0]
    with torch.no_grad():
        found, refused = find_hidden(Linears(model), lambda: _ask(model.field, question))
    assert list(found) == HIDDEN[teacher.config.method_name]
    assert {str(layer.function) for layer in found.values()} == {"relu(z)"}
    assert not set(found) & set(refused)


def test_layers_are_chosen_by_full_name(teacher: Run) -> None:
    first, *_, last = HIDDEN[teacher.config.method_name]
    _, student, reports = convert_stock(teacher, StockConfig(("field.*",), (f"field.(?!{last[6:]}$).*",), 6, **RAYS))
    assert [layer.name for layer in reports["field"].layers] == [last]
    assert student.get_submodule(first).out_features == teacher.model.get_submodule(first).out_features
    with pytest.raises(ConfigError, match=r"layer pattern 'trunk.*' matches no layer; there are: .*field\.mlp_base"):
        convert_stock(teacher, StockConfig(layers=("trunk.*",), **RAYS))
    if teacher.config.method_name == "nerfacto":
        proposals = StockConfig(layers=("proposal_networks.*0",), num_features=5, **RAYS)
        _, student, reports = convert_stock(teacher, proposals)
        assert list(reports) == ["proposal_networks.0", "proposal_networks.1"]
        assert student.proposal_networks[1].mlp_base[1].layers[0].out_features == 5
        with pytest.raises(ConfigError, match=r"layers\.1 has an output that no linear layer reads"):
            convert_stock(teacher, StockConfig(layers=("field.mlp_base.*layers.1",), **RAYS))


def test_a_checkpoint_of_other_sizes_is_an_error(teacher: Run, tmp_path: Path) -> None:
    trainer, student, _ = convert_stock(
        teacher, StockConfig(layers=(r"field.mlp_head.layers.\d",), num_features=7, **RAYS)
    )
    trainer.output_dir, trainer.experiment_name, trainer.timestamp = tmp_path, "converted", "now"
    trainer.pipeline.linears["field.mlp_head.layers.0"][1] = 8
    path = write_run(trainer, student, teacher.step)
    with pytest.raises(RunError, match="of another architecture"):
        load_run(path, device="cpu", test_mode="val")
    with without_lpips(), pytest.raises(RunError, match="of another architecture"):
        eval_setup(path, test_mode="val")
    with pytest.raises(RunError, match=r"'field\.none', which \w+ has not"):
        resize(student, {"field.none": [1, 2, 1]})
