"""A narrower network in place of a conversion: of its multiply-adds, trained anew, and named where much is lost."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml
from nerfstudio.engine.trainer import TrainerConfig

from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.convert_run import open_teacher
from eugen_nerf.conversion.teachers.teacher import Student
from eugen_nerf.core import EUGenLinear, build_nerf
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.loading import load_run

FEW = DistillConfig(layers=("trunk_1", "head_0"), num_features=(9, 7), ray_fraction=0.5, timestamp="t")


def converted(path: Path, output: Path, config: DistillConfig = FEW) -> tuple[TrainerConfig, Student, GraphModel]:
    """The narrower network's configuration, the student, and the narrower network before its first step."""
    teacher = open_teacher(
        load_run(path, device="cpu", test_mode="val"), dataclasses.replace(config, output_dir=output)
    )
    student = teacher.convert(teacher.configured_plan())
    trainer = teacher.narrower(student)
    assert trainer is not None
    trainer = yaml.load(yaml.dump(trainer), Loader=yaml.Loader)
    return trainer, student, trainer.pipeline.model.setup(scene_box=teacher.model.scene_box, num_train_data=4)


@pytest.mark.parametrize("kind", ["stock", "dense"])
def test_no_other_narrower_network_is_nearer_in_cost(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    _, student, model = converted(request.getfixturevalue(f"tiny_{kind}_run"), tmp_path)
    network = model.graph_fields()["fine"].network
    assert not any(isinstance(network.layer(name), EUGenLinear) for name in network.names)
    cost = student.model.field_fine.macs_per_query()
    widths = [network.layer("trunk_1").out_features + more for more in (-1, 1)]
    shape = student.trainer.pipeline.model.network.shape()
    others = [build_nerf(shape.narrowed(width)).multiply_adds() for width in widths]
    assert abs(network.multiply_adds() - cost) <= min(abs(other - cost) for other in others)


def test_it_is_trained_from_first_weights_of_its_own(tiny_dense_run: Path, tmp_path: Path) -> None:
    """In an experiment of its own beside the student's, whatever the teacher had been resumed from."""
    path = Path(shutil.copytree(tiny_dense_run.parent, tmp_path / "teacher")) / "config.yml"
    config = yaml.load(path.read_text(), Loader=yaml.Loader)
    config.load_dir, config.load_step = Path("/nonexistent"), 77
    path.write_text(yaml.dump(config))
    trainer, student, _ = converted(path, tmp_path / "runs")
    trainer.set_timestamp()
    trainer.save_config()
    assert trainer.get_base_dir().parent.parent == tmp_path / "runs" / f"{student.trainer.experiment_name}-narrower"
    assert trainer.optimizers.keys() == config.optimizers.keys()
    training = trainer.setup(local_rank=0, world_size=1)
    training.setup()
    assert training._start_step == 0
    training.train()
    assert load_run(trainer.get_base_dir() / "config.yml", device="cpu").step == trainer.max_num_iterations - 1


def test_a_field_that_was_not_converted_keeps_its_width(tiny_dense_dnerf_run: Path, tmp_path: Path) -> None:
    """Deformation and canonical fields share their variant."""
    deformation = dataclasses.replace(FEW, fields=("deformation",), layers=("trunk_[12]",), num_features=(8,))
    _, student, model = converted(tiny_dense_dnerf_run, tmp_path, deformation)
    teacher = load_run(tiny_dense_dnerf_run, device="cpu").model.graph_fields()
    for name, field in model.graph_fields().items():
        before, now = teacher[name].network.multiply_adds(), field.network.multiply_adds()
        assert now < 0.8 * before if name == "deformation" else now == before, name
    assert [report.name for report in student.reports] == ["deformation"]


def test_where_nothing_was_converted_there_is_none(tiny_dense_run: Path, tmp_path: Path) -> None:
    teacher = open_teacher(
        load_run(tiny_dense_run, device="cpu", test_mode="val"),
        DistillConfig(layers=("none",), ray_fraction=0.5, output_dir=tmp_path),
    )
    assert teacher.narrower(teacher.convert(teacher.configured_plan())) is None
