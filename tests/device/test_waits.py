"""What spares the host a wait changes no number, and a CPU's work leaves a GPU alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from unittest import mock

import pytest
import torch
from pretend import device_of, pretend_cuda
from torch import Tensor

from eugen_nerf.cli.eval import EvalCommand
from eugen_nerf.core.rendering.sphere_tracing import STEPS_PER_COUNT, first_crossing
from eugen_nerf.evaluation.protocol import Protocol, Timing
from eugen_nerf.methods.background_renderers import rgb_renderer
from eugen_nerf.methods.runs.loading import load_run

MAX_STEPS = 96


def room_with_a_ball(points: Tensor) -> Tensor:
    return torch.minimum(points.norm(dim=-1) - 0.5, 1.5 - points.abs().amax(dim=-1))


def rays(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Origins, directions, near and far of rays: some hit, some leave, some begin inside, some have no length."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(count, 3, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    far = 2.0 * torch.rand(count, generator=generator)
    return origins, directions, torch.full((count,), 0.07), far


def test_a_march_on_a_gpu_finds_what_one_on_a_cpu_finds_with_few_waits() -> None:
    here = first_crossing(room_with_a_ball, *rays(500), max_steps=MAX_STEPS)
    assert 0.2 < here[1].float().mean() < 0.8
    given = rays(500)
    with pretend_cuda() as counts:
        there = first_crossing(room_with_a_ball, *(v.to("cuda") for v in given), max_steps=MAX_STEPS)
        assert {device_of(v) for v in there} == {torch.device("cuda", 0)}
        assert counts.waits.total() - len(given) <= MAX_STEPS // STEPS_PER_COUNT + 2
    assert torch.equal(here[0], there[0])
    assert torch.equal(here[1], there[1])


def test_a_frame_of_a_signed_distance_is_rendered_with_few_waits(device_run: Callable[[str, str], Path]) -> None:
    path = device_run("eugen-isdf-small", "eugen")
    with pretend_cuda() as counts:
        run = load_run(path)
        camera = run.pipeline.datamanager.eval_dataset.cameras[:1]
        counts.reset()
        outputs = run.model.get_outputs_for_camera(camera)
        assert counts.waits.total() < 60, counts.waits.most_common(9)
    assert 0 < outputs["accumulation"].mean() <= 1


@pytest.mark.parametrize("name", ["white", "black"])
def test_a_plain_background_is_nerfstudios_and_no_part_of_a_checkpoint(name: str) -> None:
    from nerfstudio.model_components.renderers import RGBRenderer

    ours, theirs = rgb_renderer(name, None), RGBRenderer(background_color=name)  # type: ignore[arg-type]
    assert not ours.state_dict()
    generator = torch.Generator().manual_seed(0)
    rgb, weights = torch.rand(5, 4, 3, generator=generator), torch.rand(5, 4, 1, generator=generator) / 4
    image, opacity = torch.rand(5, 4, generator=generator), weights.sum(dim=-2)
    assert torch.equal(ours(rgb, weights), theirs(rgb, weights))
    assert torch.equal(ours.blend_background(image), theirs.blend_background(image))
    pairs = zip(
        ours.blend_background_for_loss_computation(rgb[:, 0], opacity, image),
        theirs.blend_background_for_loss_computation(rgb[:, 0], opacity, image),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    with pretend_cuda() as counts:
        ours.to("cuda")
        inputs = rgb.to("cuda"), weights.to("cuda")
        counts.reset()
        ours(*inputs)
        assert not counts.waits


def test_an_evaluation_on_a_cpu_leaves_a_gpu_alone(device_run: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = device_run("eugen-nerf-small", "eugen")

    def initialise() -> NoReturn:
        raise AssertionError("CUDA is initialised")

    def available() -> bool:
        return True

    def check(optimizer: torch.optim.Optimizer) -> None:
        """torch's own looks for a stream that is being captured."""

    quick = Timing(num_queries=64, chunk_size=64, repeats=1, warmup=0, split_repeats=1, train_iterations=1)
    command = EvalCommand(load_config=(path,), output=tmp_path, device="cpu", scoring=Protocol(limit=1), speed=quick)
    with (
        mock.patch.object(torch.cuda, "is_available", available),
        mock.patch.object(torch.cuda, "_lazy_init", initialise),
        mock.patch.object(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", check),
    ):
        with pytest.raises(AssertionError, match="initialised"):
            torch.cuda.current_device()
        command.run()
    assert (tmp_path / "report.json").is_file()
