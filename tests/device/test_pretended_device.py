"""The pretended device itself: it refuses what CUDA refuses, and counts a known sequence exactly."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pretend import DeviceMixError, device_of, pretend_cuda
from torch import Tensor, nn

GPU = torch.device("cuda", 0)


def on_gpu(*shape: int) -> Tensor:
    return torch.ones(shape, device="cuda")


REFUSED: dict[str, Callable[[], object]] = {
    "a sum": lambda: on_gpu(2) + torch.ones(2),
    "a sum in place": lambda: torch.ones(2).add_(on_gpu(2)),
    "a number of the device added in place": lambda: torch.ones(()).add_(on_gpu()),
    "a product": lambda: on_gpu(2, 2) @ torch.ones(2, 2),
    "a stack of numbers": lambda: torch.stack([on_gpu(), torch.ones(())]),
    "torch.where": lambda: torch.where(on_gpu(2) > 0, torch.ones(2), on_gpu(2)),
    "numpy": lambda: on_gpu(2).numpy(),
    "numpy of a view": lambda: on_gpu(2, 2)[0].numpy(),
    "np.asarray": lambda: np.asarray(on_gpu(2)),
    "a generator of the CPU": lambda: torch.rand(2, device="cuda", generator=torch.Generator()),
    "a generator of the CPU in place": lambda: on_gpu(2).normal_(generator=torch.Generator()),
    "a generator of the device": lambda: torch.randperm(3, generator=torch.Generator("cuda")),
    "a mask on the device": lambda: torch.ones(2)[on_gpu(2) > 0],
    "indices on the device": lambda: torch.ones(2)[torch.zeros(1, dtype=torch.long, device="cuda")],
    "values on the CPU": lambda: on_gpu(3).index_put_((torch.tensor([0, 1]).cuda(),), torch.ones(2)),
    "a layer on the CPU": lambda: nn.Linear(2, 2)(on_gpu(1, 2)),
    "a loss": lambda: nn.functional.mse_loss(on_gpu(2), torch.ones(2)),
    "an index of an embedding": lambda: nn.functional.embedding(torch.tensor([0]), on_gpu(2, 2)),
    "pinned memory": lambda: on_gpu(2).pin_memory(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cuda_refuses_is_refused(name: str) -> None:
    with pretend_cuda(), pytest.raises(DeviceMixError):
        REFUSED[name]()


ALLOWED: dict[str, Callable[[], Tensor]] = {
    "a number of the host": lambda: on_gpu(2) * torch.tensor(2.0),
    "a number of the host where it is": lambda: torch.where(on_gpu(2) > 0, 1.0, torch.tensor(0.0)),
    "indices of the host": lambda: on_gpu(3)[torch.tensor([0, 1])],
    "a copy": lambda: on_gpu(2).copy_(torch.zeros(2)),
    "an assignment": lambda: _assigned(on_gpu(3)),
    "a layer that was moved": lambda: nn.Linear(2, 2).to("cuda")(on_gpu(1, 2)),
    "a layer moved to where a tensor is": lambda: nn.Linear(2, 2).to(on_gpu(1))(on_gpu(1, 2)),
    "a layer copied": lambda: copy.deepcopy(nn.BatchNorm1d(2).cuda())(on_gpu(3, 2)),
    "a generator": lambda: torch.rand(2, device="cuda", generator=torch.Generator("cuda").manual_seed(0)),
    "one_hot": lambda: nn.functional.one_hot(torch.arange(3, device="cuda"), 3),
    "a tensor as another": lambda: torch.ones(2).to(on_gpu(1)) + on_gpu(2),
    "as_tensor": lambda: torch.as_tensor(np.ones(2, dtype=np.float32), device="cuda") + on_gpu(2),
    "new_tensor": lambda: on_gpu(2).new_tensor([1.0, 2.0]) + on_gpu(2),
}


def _assigned(x: Tensor) -> Tensor:
    x[:2] = torch.zeros(2)
    x[x > 0.5] = 2.0
    return x


@pytest.mark.parametrize("name", ALLOWED)
def test_what_cuda_allows_is_allowed_and_stays_on_the_device(name: str) -> None:
    with pretend_cuda():
        assert ALLOWED[name]().device == GPU


def test_a_refusal_names_the_place_and_the_tensors() -> None:
    from eugen_nerf.core.rendering.sphere_tracing import surface_samples

    with (
        pretend_cuda(),
        pytest.raises(DeviceMixError, match=r"core/rendering/sphere_tracing\.py:\d+") as caught,
    ):
        surface_samples(torch.zeros(2), on_gpu(2), stratified=1, around=2, margin=0.1, spread=0.1)
    assert re.search(r"\[2, 1\] on cuda:0", str(caught.value))


def test_views_results_and_gradients_are_where_they_came_from() -> None:
    with pretend_cuda():
        x = torch.ones(2, 3, requires_grad=True)
        y = x.to("cuda")
        assert (device_of(x).type, y.device, y[0].device, (y * 2).device) == ("cpu", GPU, GPU, GPU)
        assert y.is_cuda
        assert not x.is_cuda
        leaf = torch.ones(3, device="cuda", requires_grad=True)
        (leaf * 2).sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.device == GPU
        assert (leaf.grad.cpu() == 2).all()
        assert y.detach().cpu().numpy().shape == (2, 3)
    assert not torch.cuda.is_available()
    assert (torch.ones(1).device.type, torch.Tensor.to.__name__) == ("cpu", "to")


def test_a_known_sequence_is_counted_exactly() -> None:
    with pretend_cuda() as counts:
        x = torch.zeros(8, 4, device="cuda")  # a launch, 128 bytes
        y = x.T.flatten()[:8]  # a copy: a launch, 2 * 128 bytes
        z = y * 2 + 1  # two launches, 2 * 32 bytes each
        torch.empty(5, device="cuda")
        mask = z > 0  # a launch, 32 + 8 bytes
        assert counts.summary() == {
            "launches": 5,
            "waits": 0,
            "bytes": 128 + 256 + 128 + 40,
            "float64_operations": 0,
        }
        counts.reset()
        assert bool(mask.any())  # a launch and a wait
        z[mask]  # a launch and a wait
        mask.nonzero()  # likewise
        z.sum().item()  # likewise
        z.tolist()  # a wait
        z.cpu()  # a copy and a wait
        torch.tensor([1.0, 2.0], device="cuda")  # likewise
        z.double().add(1)  # two launches of float64
        z.to("cuda"), z.double().sum()  # one more, and one of a single number
        torch.cuda.synchronize()
    assert counts.launches.total() == 1 + 1 + 1 + 1 + 1 + 1 + 2 + 2
    assert sorted(what for what, _ in counts.waits.elements()) == [
        "_local_scalar_dense",
        "_local_scalar_dense",
        "copy to the device",
        "copy to the host",
        "index by a mask",
        "nonzero",
        "tolist",
        "torch.cuda.synchronize",
    ]
    assert counts.doubles.total() == 3


def test_work_of_the_host_is_not_counted() -> None:
    with pretend_cuda() as counts:
        x = torch.rand(4)
        assert bool((x @ x) > -1)
        x[x > 0.5].tolist()
    assert counts.summary() == {"launches": 0, "waits": 0, "bytes": 0, "float64_operations": 0}


def test_optimizers_take_one_launch_for_many_parameters() -> None:
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(6)])
    with pretend_cuda() as counts:
        model.to("cuda")
        optimizer = torch.optim.Adam(model.parameters())
        model(on_gpu(2, 3)).sum().backward()
        optimizer.step()
        counts.reset()
        optimizer.step()
        assert counts.launches.total() < 20
        assert counts.waits.total() == 0


def test_files_remember_the_device(tmp_path: Path) -> None:
    with pretend_cuda():
        torch.save({"x": on_gpu(2), "y": torch.ones(2)}, tmp_path / "file")
        found = torch.load(tmp_path / "file")
        assert (found["x"].device, found["y"].device.type) == (GPU, "cpu")
        assert torch.load(tmp_path / "file", map_location="cpu")["x"].device.type == "cpu"
        assert torch.load(tmp_path / "file", map_location="cuda:0")["y"].device == GPU
    with pytest.raises(RuntimeError, match="map_location"):
        torch.load(tmp_path / "file")


def test_a_pause_is_that_of_one_thread() -> None:
    """Batches are made in a thread beside the training, where the pretence pauses now and then."""
    paused, done = threading.Event(), threading.Event()
    with pretend_cuda() as counts:

        def pause() -> None:
            with counts.paused():
                paused.set()
                done.wait(10)

        thread = threading.Thread(target=pause)
        thread.start()
        assert paused.wait(10)
        x = torch.rand(3, device="cuda") + 1
        done.set()
        thread.join()
        assert x.device.type == "cuda"
        with pytest.raises(DeviceMixError):
            x + torch.rand(3)
