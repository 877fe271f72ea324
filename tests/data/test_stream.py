"""The data manager of a depth stream: rays meet the surface, checkpoints hold its state, bad frames are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_rgbd import CENTRE, FPS, HALF, RADIUS, depth_from, pose_at, true_distance, write_sequence

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig
from eugen_nerf.data.stream import RGBDStreamConfig, RGBDStreamDataManager

ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequence(tmp_path_factory.mktemp("sequence") / "room", ANGLES)


def manager(data: Path, **changes: Any) -> RGBDStreamDataManager:
    settings = {"frame_rate": FPS, "steps_on_frame": 2, "steps_on_keyframe": 3, "steps_on_first": 4, "normal_step": 1}
    settings |= {"train_num_rays_per_batch": 60, "eval_num_rays_per_batch": 20, "check_rays": 10}
    config = RGBDStreamConfig(dataparser=EugenRGBDDataParserConfig(data=data, eval_interval=4), **settings | changes)
    made = config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)
    assert isinstance(made, RGBDStreamDataManager)
    return made


def test_rays_meet_the_surface_with_its_normal(sequence: Path) -> None:
    """In metres, against the closed form of the scene; normals where no edge is near."""
    bundle, batch = manager(sequence, mode="batch", train_num_rays_per_batch=600).next_train(0)
    distance = bundle.metadata["surface_distance"]
    points = (bundle.origins + distance * bundle.directions).double().numpy()
    assert np.abs(true_distance(points)).max() < 2e-3  # depth is stored in millimetres
    torch.testing.assert_close(batch["depth_image"] * bundle.metadata["directions_norm"], distance)
    assert (distance >= batch["depth_image"]).all()

    on_ball = np.linalg.norm(points - CENTRE, axis=-1) < RADIUS + 5e-3
    outward = (points - CENTRE) / np.linalg.norm(points - CENTRE, axis=-1, keepdims=True)
    wall = np.abs(HALF - np.abs(points)).argmin(axis=-1)
    inward = -np.sign(points) * np.eye(3)[wall]
    truth = np.where(on_ball[:, None], outward, inward)
    found = bundle.metadata["surface_normals"].numpy()
    known = ~np.isnan(found[:, 0])
    assert known.mean() > 0.8
    np.testing.assert_allclose(np.linalg.norm(found[known], axis=-1), 1.0, atol=1e-5)
    cosine = (found * truth).sum(-1)[known]
    assert np.mean(cosine > 0.95) > 0.9
    assert (bundle.directions.numpy()[known] * found[known]).sum(-1).max() <= 1e-6


def test_frames_share_the_rays_and_nothing_is_drawn_from_the_global_generators(sequence: Path) -> None:
    stream = manager(sequence, mode="batch", train_num_rays_per_batch=61)
    state = torch.get_rng_state()
    bundle, batch = stream.next_train(3)
    assert torch.equal(state, torch.get_rng_state())
    counts = bundle.metadata["frame"].unique(return_counts=True)[1]
    assert len(bundle) == 61
    assert sorted(counts.tolist()) == [12, 12, 12, 12, 13]
    again = manager(sequence, mode="batch", train_num_rays_per_batch=61).next_train(3)[1]
    assert torch.equal(batch["indices"], again["indices"])
    assert not torch.equal(batch["indices"], stream.next_train(4)[1]["indices"])


def test_frames_are_revealed_step_by_step(sequence: Path) -> None:
    stream = manager(sequence)
    agreed: list[torch.Tensor] = []

    def agreement(bundle: Any, reference: Any) -> float:
        agreed.append(bundle.metadata["frame"].unique())
        return 1.0

    stream.set_map(agreement, lambda: {"weight": torch.ones(2)})
    seen = [set(stream.next_train(step)[0].metadata["frame"][:, 0].tolist()) for step in range(9)]
    # frames 3 and 7 of 12 are held out, so the fourth training frame was taken after 0.4 s
    assert seen[:4] == [{0}] * 4
    assert seen[4] == {0, 3}
    assert seen[6] == {0, 5}
    assert [a.tolist() for a in agreed] == [[3], [5], [6]]
    assert set(stream._frames) == {0, 6}  # neither keyframe nor latest: not in memory


def test_state_goes_through_a_checkpoint(sequence: Path, tmp_path: Path) -> None:
    stream = manager(sequence)
    stream.set_map(lambda bundle, reference: 0.0, lambda: {"weight": torch.full((2,), 7.0)})
    for step in range(8):
        bundle, _ = stream.next_train(step)
        stream.record(bundle.metadata["frame"][:, 0], torch.linspace(1, 2, len(bundle)))
    torch.save(stream.state_dict(), tmp_path / "state.pt")
    other = manager(sequence)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.memory.state() == stream.memory.state()
    assert len(stream.memory.keyframes) > 2
    assert other.reference is not None
    assert other.reference["weight"].tolist() == [7.0, 7.0]
    other.set_map(lambda bundle, reference: 0.0, lambda: {})
    assert torch.equal(other.next_train(8)[1]["indices"], stream.next_train(8)[1]["indices"])


def test_blind_frames_are_skipped_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream = manager(write_sequence(tmp_path / "room", ANGLES), mode="batch", window=20)
    depth = stream.train_dataset.depth  # type: ignore[attr-defined]
    stream.train_dataset.depth = lambda i: depth(i) * (float("nan") if i in (0, 2) else 1.0)  # type: ignore[attr-defined]
    for step in range(3):
        frames = stream.next_train(step)[0].metadata["frame"]
        assert set(frames[:, 0].tolist()) == {1, 3, 4, 5, 6, 7, 8}
    lines = [line for line in capsys.readouterr().out.splitlines() if "is skipped" in line]
    assert len(lines) == 2
    stream._frames.clear()
    stream.train_dataset.depth = lambda i: depth(i) * float("nan")  # type: ignore[attr-defined]
    for mode in ("batch", "incremental"):
        stream.config.mode = mode  # type: ignore[assignment]
        with pytest.raises(
            DataError, match="no training frame revealed up to step 5 has a valid depth; check depth_unit"
        ):
            stream.next_train(5)


def test_evaluation_images_carry_their_depth(sequence: Path) -> None:
    stream = manager(sequence)
    camera, batch = next(iter(stream.fixed_indices_eval_dataloader))
    assert batch["depth_image"].shape == (24, 32, 1)
    np.testing.assert_allclose(batch["depth_image"][..., 0].numpy(), depth_from(pose_at(ANGLES[3])), atol=6e-4)
    torch.testing.assert_close(
        camera.camera_to_worlds[0].double(), torch.from_numpy(pose_at(ANGLES[3])[:3]), atol=1e-6, rtol=0
    )
    bundle, _ = stream.next_eval(0)
    points = (bundle.origins + bundle.metadata["surface_distance"] * bundle.directions).double().numpy()
    assert np.abs(true_distance(points)).max() < 2e-3


def test_smaller_images_keep_the_depth_of_a_pixel(sequence: Path) -> None:
    stream = manager(sequence, camera_res_scale_factor=0.5, mode="batch")
    depth = stream.train_dataset.depth(0)  # type: ignore[attr-defined]
    assert depth.shape == (12, 16)
    whole = torch.from_numpy(depth_from(pose_at(0.0))).float()
    assert (depth[..., None] - whole.flatten()).abs().min(dim=-1).values.max() < 1e-3
    bundle, _ = stream.next_train(0)
    points = (bundle.origins + bundle.metadata["surface_distance"] * bundle.directions).double().numpy()
    assert np.quantile(np.abs(true_distance(points)), 0.8) < 0.08  # half a pixel aside, which is 2.5 cm a metre away


def test_refusals(sequence: Path) -> None:
    with pytest.raises(ConfigError, match=r"3 rays a batch.*at least 5 \(one a frame\)"):
        manager(sequence, train_num_rays_per_batch=3)
    with pytest.raises(ConfigError, match="a window of 1 frames is too small"):
        manager(sequence, window=1)
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    config = RGBDStreamConfig(dataparser=NerfstudioDataParserConfig(data=sequence, downscale_factor=1))
    with pytest.raises(DataError, match=r"provides no .*depth_invalid, depth_max, timestamps"):
        config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)
