"""Two processes that train all families together, as `ns-train --machine.num-devices 2` does on two GPUs.

nerfstudio asserts CUDA for more than one process, so they are started here: modules are imported once, then two workers
are forked, which exchange by gloo. Each has an output folder of its own, so that the writer of a file is known, and
leaves what it found in `rank0.pt` or `rank1.pt`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from nerfstudio.pipelines import base_pipeline
from nerfstudio.scripts.train import _set_random_seed
from nerfstudio.utils import comms
from tiny_rgbd import FPS, isdf_config
from tiny_runs import shrink_dnerf, shrink_nerf, shrink_ngp, shrink_unbounded, tiny_config
from torch import Tensor, distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from eugen_nerf.core.errors import RunError
from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig
from eugen_nerf.data.stream import RGBDStreamConfig
from eugen_nerf.methods.graph_model import DIVERGENCE_CHECK_INTERVAL
from eugen_nerf.methods.runs.loading import without_lpips

METHODS = {
    "eugen-nerf-small": ("blender", shrink_nerf),
    "eugen-ngp-small": ("blender", shrink_ngp),
    "eugen-mipnerf360-small": ("nerfstudio", shrink_unbounded),
    "eugen-zipnerf-small": ("nerfstudio", shrink_unbounded),
    "eugen-dnerf-small": ("dnerf", shrink_dnerf),
    "eugen-dnerf-hash-small": ("dnerf", shrink_dnerf),
    "eugen-isdf-small": ("rgbd", None),
}
"""One preset of each family, its data, and what makes its model tiny."""
STEPS, FURTHER = 8, 4
"""Steps of a training, and of the one that goes on from it."""


class ParallelOnCPU(DistributedDataParallel):
    """As torch's, which takes the numbers of GPUs alone, and nerfstudio gives one."""

    def __init__(self, module: Any, device_ids: Any, **options: Any) -> None:
        super().__init__(module, **options)


def make_config(method: str, data: Path, output: Path, shrink: Callable[[Any], None] | None) -> Any:
    if shrink is None:
        config = isdf_config(data, output, iterations=STEPS, method=method)
        stream, model = config.pipeline.datamanager, config.pipeline.model
        stream.steps_on_first, stream.steps_on_keyframe, stream.steps_on_frame, stream.window = 2, 1, 1, 3
        stream.train_num_rays_per_batch = stream.eval_num_rays_per_batch = stream.check_rays = 24
        model.network.trunk_width, model.network.num_features = 16, (6,)
        model.num_stratified_samples, model.num_surface_samples = 4, 3
        config.seconds_per_save = 1e-9
    else:
        config = tiny_config(method, data, output, seed=0, iterations=STEPS)
        shrink(config.pipeline.model)
    if method == "eugen-nerf-small":
        config.pipeline.model.occupancy, config.pipeline.model.occupancy_resolution = "hull", 24
    if "dnerf" in method:
        config.pipeline.datamanager.reveal_steps = STEPS
    if method == "eugen-mipnerf360-small":  # one family by Muon
        config.pipeline.model.network.train_merged = True
        for group in config.optimizers.values():
            group["optimizer"].algorithm = "muon"
    config.steps_per_eval_batch, config.steps_per_eval_image = 3, 5
    return config


def weights_of(trainer: Any) -> dict[str, Tensor]:
    model = trainer.pipeline.model
    return {name: v.detach().clone() for name, v in [*model.named_parameters(), *model.named_buffers()]}


def stream_of(trainer: Any) -> Any:
    memory = getattr(trainer.pipeline.datamanager, "memory", None)
    return None if memory is None else memory.state()


def train(config: Any, rank: int) -> tuple[Any, dict[str, Any]]:
    """As nerfstudio's `main` and `train_loop`; also returns what the training was given and came to."""
    if rank == 0:
        config.save_config()
    _set_random_seed(config.machine.seed + rank)
    # a copy: nerfstudio's pixel sampler writes a tensor into its configuration
    trainer = deepcopy(config).setup(local_rank=rank, world_size=2)
    trainer.setup()
    manager, pixels = trainer.pipeline.datamanager, []
    found = {"start": weights_of(trainer), "first_step": trainer._start_step, "stream_start": stream_of(trainer)}
    draw = manager.next_train

    def watched(step: int) -> tuple[Any, dict[str, Any]]:
        bundle, batch = draw(step)
        pixels.append(batch["indices"])
        return bundle, batch

    manager.next_train = watched
    trainer.train()
    found |= {"pixels": torch.stack(pixels), "end": weights_of(trainer), "stream": stream_of(trainer)}
    return trainer, found


def averaged_gradients(trainer: Any) -> dict[str, Any]:
    """A batch of this process without jitter, and the gradients that both come to."""
    pipeline, model = trainer.pipeline, trainer.pipeline.model
    model.sampler_uniform.train_stratified = model.sampler_pdf.train_stratified = False
    bundle, batch = pipeline.datamanager.next_train(0)
    trainer.optimizers.zero_grad_all()
    torch.stack([*model.get_loss_dict(pipeline._model(bundle), batch).values()]).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    rays = {key: getattr(bundle, key) for key in ("origins", "directions", "pixel_area", "camera_indices")}
    return {"rays": rays, "norm": bundle.metadata["directions_norm"], "image": batch["image"], "gradients": gradients}


def divergence(model: Any, rank: int) -> str:
    """What becomes of a training that has diverged in the second process alone."""
    model._batches = DIVERGENCE_CHECK_INTERVAL - 1
    try:
        model.train().refuse_divergence(torch.tensor(float("nan") if rank == 1 else 0.5))
    except RunError as error:
        return str(error)
    return "goes on"


def samples_on_the_same_rays(trainer: Any) -> Tensor:
    """Distances that a training step makes for a batch of the first process."""
    held = [trainer.pipeline.datamanager.next_eval(0)[0]]
    distributed.broadcast_object_list(held, src=0)
    return trainer.pipeline.model.train().get_outputs(held[0])["distance"].detach()


def stream_alone(data: Path, rank: int) -> dict[str, Any]:
    """A stream whose map says in the first process that all frames are new, in the second that none is."""
    config = RGBDStreamConfig(dataparser=EugenRGBDDataParserConfig(data=data), frame_rate=FPS, normal_step=1)
    config.steps_on_first = config.steps_on_keyframe = config.steps_on_frame = 1
    config.train_num_rays_per_batch = config.check_rays = 24
    manager: Any = config.setup(device="cpu", test_mode="val", world_size=2, local_rank=rank)
    manager.set_map(lambda bundle, reference: float(rank), lambda: {"weight": torch.zeros(1)})
    for step in range(8):
        bundle, _ = manager.next_train(step)
        frames = bundle.metadata["frame"][:, 0]
        losses = torch.linspace(1, 2, len(frames)) * (1 + 2 * rank)
        manager.record(frames, losses)
    return {"state": manager.memory.state(), "frames": frames, "losses": losses}


def all_families(sets: dict[str, str], output: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for method, (data, shrink) in METHODS.items():
        config = make_config(method, Path(sets[data]), output, shrink)
        config.timestamp = "first"
        trainer, first = train(config, rank)
        if method == "eugen-nerf-small":
            found["gradients"] = averaged_gradients(trainer)
            found["divergence"] = divergence(trainer.pipeline.model, rank)
        if method == "eugen-isdf-small":
            found["samples"] = samples_on_the_same_rays(trainer)
        resumed = deepcopy(config)
        resumed.timestamp, resumed.max_num_iterations = "resumed", FURTHER
        resumed.load_dir = output.parent / "rank0" / config.get_checkpoint_dir().relative_to(output)
        distributed.barrier()
        found[method] = {"first": first, "resumed": train(resumed, rank)[1]}
        if method == "eugen-isdf-small":  # its draws go by the step, so that nothing may differ
            whole = deepcopy(config)
            whole.timestamp, whole.max_num_iterations = "whole", STEPS + FURTHER
            found[method]["whole"] = train(whole, rank)[1]
    return found


def work(rank: int, folder: Path, sets: dict[str, str]) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'rendezvous'}"
    distributed.init_process_group("gloo", init_method=store, world_size=2, rank=rank, timeout=timedelta(minutes=2))
    comms.LOCAL_PROCESS_GROUP = distributed.new_group([0, 1])
    base_pipeline.DDP = ParallelOnCPU  # type: ignore[misc]
    with without_lpips():
        found = all_families(sets, folder / f"rank{rank}", rank)
    found["stream_alone"] = stream_alone(Path(sets["rgbd"]), rank)
    torch.save(found, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    target = partial(work, folder=Path(sys.argv[1]), sets=json.loads(sys.argv[2]))
    workers = [context.Process(target=target, args=(rank,)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.exit(max(abs(worker.exitcode or 0) for worker in workers))
