"""Training iterations timed: they are nerfstudio's own, they change no file, and memory grows with rays."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.utils import writer

from eugen_nerf.core.errors import RunError
from eugen_nerf.evaluation import compare
from eugen_nerf.evaluation.compare import evaluate
from eugen_nerf.evaluation.costs.training_cost import KEYS, Batch, Trainee, draw_batches, training_costs
from eugen_nerf.evaluation.protocol import Timing
from eugen_nerf.methods.runs.loading import Run, load_run, without_lpips


def parameters(run: Run) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in run.model.named_parameters() if value.numel()}


def test_an_iteration_is_the_one_of_nerfstudios_trainer(
    tiny_eugen_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed by nerfstudio from the same checkpoint and fed the same batch: the same weights, bit for bit."""
    monkeypatch.setattr(writer, "EVENT_WRITERS", [])
    monkeypatch.setattr(writer, "EVENT_STORAGE", [])
    run = load_run(tiny_eugen_run, device="cpu")
    run.config.optimizers["fields"]["optimizer"].max_norm = 1e-3  # clipping has to be seen
    batches = draw_batches(run, 1, seed=3)
    trainee, given = Trainee(run, batches), deepcopy(batches)

    config = deepcopy(run.config)
    config.load_dir, config.output_dir = run.checkpoint.parent, tmp_path
    trainer = config.setup(local_rank=0, world_size=1)
    with without_lpips():
        trainer.setup(test_mode="test")
    trainer.pipeline.train()
    before = parameters(run)
    trainer.pipeline.datamanager.next_train = lambda step: given[0]
    torch.manual_seed(0)
    trainee.iterate()
    torch.manual_seed(0)
    trainer.train_iteration(run.step + 1)
    for name, value in parameters(run).items():
        assert torch.equal(value, trainer.pipeline.model.get_parameter(name)), name
        assert not torch.equal(value, before[name]), name


def test_gradients_gather_over_steps_where_the_config_says_so(tiny_eugen_run: Path) -> None:
    run = load_run(tiny_eugen_run, device="cpu")
    assert run.step == 1  # so that the next step is even
    run.config.gradient_accumulation_steps = {"fields": 2}
    trainee, before = Trainee(run, draw_batches(run, 1, seed=0)), parameters(run)
    trainee.iterate()
    assert all(torch.equal(before[name], value) for name, value in parameters(run).items())
    trainee.iterate()
    assert any(not torch.equal(before[name], value) for name, value in parameters(run).items())


def test_callbacks_hear_of_the_steps_after_the_checkpoint(
    tiny_stock_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, heard = load_run(tiny_stock_run, device="cpu"), []
    before, after = TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION

    def callbacks(attributes) -> list[TrainingCallback]:
        assert attributes.pipeline is run.pipeline
        assert attributes.optimizers.parameters.keys() == {"fields"}
        return [
            TrainingCallback([place], lambda place, step: heard.append((place, step, run.model.training)), args=[place])
            for place in (after, before)
        ]

    monkeypatch.setattr(run.pipeline, "get_training_callbacks", callbacks)
    training_costs({"a": run}, {"a": draw_batches(run, 1, seed=0)}, "a")
    assert heard == [(place, step, True) for step in (2, 3, 4) for place in (before, after)]
    assert not run.model.training


def test_memory_grows_with_rays(tiny_dense_run: Path) -> None:
    peaks = []
    for rays in (128, 512):
        run = load_run(tiny_dense_run, device="cpu")
        run.pipeline.datamanager.train_pixel_sampler.set_num_rays_per_batch(rays)
        cost = training_costs({"a": run}, {"a": draw_batches(run, 1, seed=0)}, "a")["a"]
        assert cost.keys() == set(KEYS)
        assert cost["rays_per_iteration"] == rays
        peaks.append(cost["iteration_peak_memory_bytes"])
    gradients = 4 * sum(value.numel() for value in parameters(run).values())
    assert gradients < peaks[0] < peaks[1] - peaks[0]  # the part that rays take grows fourfold


def test_runs_are_trained_on_the_same_rays(
    tiny_eugen_run: Path, tiny_stock_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[Batch]] = []

    def draw(run: Run, iterations: int, *, seed: int) -> list[Batch]:
        state = torch.random.get_rng_state()
        drawn.append(draw_batches(run, iterations, seed=seed))
        assert torch.equal(torch.random.get_rng_state(), state)
        return drawn[-1]

    monkeypatch.setattr(compare, "draw_batches", draw)
    timing = Timing(warmup=0, repeats=1, num_queries=8, split_repeats=1, train_iterations=1, seed=5)
    evaluate([tiny_eugen_run, tiny_stock_run], timing=timing, device="cpu")
    first, second = drawn
    assert len(first) == len(second) == 3  # a warm-up, the timed one, and one for memory
    for (rays, batch), (other_rays, other) in zip(first, second, strict=True):
        assert torch.equal(rays.directions, other_rays.directions)
        assert torch.equal(batch["image"], other["image"])
    indices = [batch["indices"] for _, batch in first]
    assert not torch.equal(indices[0], indices[1])
    run = load_run(tiny_eugen_run, device="cpu")
    assert not torch.equal(indices[0], draw_batches(run, 1, seed=6)[0][1]["indices"])


def test_a_run_without_training_batches_is_refused(tiny_stock_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: VanillaDataManager, step: int) -> None:
        raise NotImplementedError("not today\nnor tomorrow")

    monkeypatch.setattr(VanillaDataManager, "next_train", nothing)
    with pytest.raises(RunError, match=r"config.yml: VanillaDataManager.* gives no .*not today\).* --train-iterations"):
        evaluate([tiny_stock_run], timing=Timing(train_iterations=1), device="cpu")


def test_a_run_without_optimizers_is_refused(tiny_stock_run: Path) -> None:
    run = load_run(tiny_stock_run, device="cpu")
    batches = draw_batches(run, 1, seed=0)
    run.config.optimizers = {}
    with pytest.raises(RunError, match="'fields' not found"):
        Trainee(run, batches)
