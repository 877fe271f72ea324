"""The curriculum of scenes that move: the earliest images first, every ray with its own image's colour and time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.dnerf_dataparser import DNeRFDataParserConfig
from PIL import Image

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.curriculum import CurriculumDataManager, CurriculumDataManagerConfig
from eugen_nerf.data.manager import EugenDataManagerConfig

TIMES = [0.5, 0.0, 1.0, 0.125, 0.75, 0.25, 0.875, 0.375]  # in the order of the files, which is none


def write_images(folder: Path, times: list[float]) -> Path:
    """Images of one grey each, that says its time."""
    for split, of_split in (("train", times), ("val", [0.5]), ("test", [0.5])):
        (folder / split).mkdir()
        frames = []
        for index, time in enumerate(of_split):
            Image.fromarray(np.full((4, 6, 3), round(255 * time), np.uint8)).save(folder / split / f"r_{index}.png")
            pose = np.eye(4)
            pose[2, 3] = 4.0
            frames.append({"file_path": f"./{split}/r_{index}", "transform_matrix": pose.tolist(), "time": time})
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path, TIMES)


def manager_of(data: Path, kind=CurriculumDataManagerConfig, rays: int = 400, **options) -> CurriculumDataManager:
    options.setdefault("dataparser", DNeRFDataParserConfig())
    config = kind(data=data, train_num_rays_per_batch=rays, eval_num_rays_per_batch=5, **options)
    config._target = CurriculumDataManager  # as nerfstudio sets the class that the method registered
    return config.setup(device="cpu", test_mode="val")


@pytest.mark.parametrize(("step", "count"), [(0, 3), (24, 3), (50, 3), (60, 4), (75, 5), (99, 7), (100, 8), (5000, 8)])
def test_rays_come_from_the_earliest_images(data: Path, step: int, count: int) -> None:
    bundle, batch = manager_of(data, reveal_steps=100).next_train(step)
    assert sorted(set(bundle.times.flatten().tolist())) == sorted(TIMES)[:count]
    colours = torch.round(255.0 * bundle.times) / 255.0
    assert torch.allclose(batch["image"], colours.expand(-1, 3), atol=1e-6)
    assert batch["image"].shape == (400, 3)


@pytest.mark.parametrize(("step", "count"), [(0, 5), (50, 5), (83, 14), (125, 27), (199, 49), (200, 50)])
def test_a_tenth_of_many_images_is_there_from_the_start(tmp_path: Path, step: int, count: int) -> None:
    times = [(17 * i % 50) / 50 for i in range(50)]
    # so many rays that each image has its share: one that is left out by chance is one in 10^30
    manager = manager_of(write_images(tmp_path, times), rays=4000, reveal_steps=200)
    assert manager.revealed(step) == count
    drawn = set(manager.next_train(step)[0].times.flatten().tolist())
    assert max(drawn) == pytest.approx((count - 1) / 50)
    assert len(drawn) == count


def test_without_steps_all_images_are_there_from_the_start(data: Path) -> None:
    assert len(set(manager_of(data).next_train(0)[0].times.flatten().tolist())) == len(TIMES)
    # the configuration of a run from before the curriculum does not have the option
    earlier = manager_of(data, kind=EugenDataManagerConfig)
    assert len(set(earlier.next_train(0)[0].times.flatten().tolist())) == len(TIMES)


def test_what_cannot_be_revealed_is_said(data: Path) -> None:
    with pytest.raises(ConfigError, match="reveal_steps is -1"):
        manager_of(data, reveal_steps=-1)
    with pytest.raises(ConfigError, match="train_num_images_to_sample_from at -1"):
        manager_of(data, reveal_steps=10, train_num_images_to_sample_from=2)
    with pytest.raises(DataError, match="images are revealed by time, but they have none"):
        manager_of(data, reveal_steps=10, dataparser=BlenderDataParserConfig())
