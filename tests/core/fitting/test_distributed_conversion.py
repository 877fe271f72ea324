"""Two processes find what one finds; a conversion that was stopped goes on where it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eugen_nerf.core import Batch, ConversionConfig, LayerGraph, LayerReport, NeRFShape, build_nerf, convert_graph
from eugen_nerf.core.distributed import (
    _exchange_device,
    first_process_value,
    is_mine,
    process_count,
    process_index,
    summed,
)
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.importance import gather_moments

SHAPE = NeRFShape(
    position_width=6, direction_width=4, trunk_layers=3, trunk_width=14, skips=(2,), head_layers=1, head_width=9
)
PLAN = {"trunk_0": 10, "trunk_1": 6, "trunk_2": 8, "head_0": 5}


def teacher() -> LayerGraph:
    torch.manual_seed(0)
    graph = build_nerf(SHAPE).double().requires_grad_(False)
    for name in graph.names:
        for parameter in graph.layer(name).parameters():
            parameter.mul_(2)
    return graph


def batches() -> list[Batch]:
    """Ten batches, of which this process makes its own."""
    found = []
    for number in range(10):
        generator = torch.Generator().manual_seed(number)
        inputs = tuple(torch.randn(90, w, generator=generator, dtype=torch.float64) for w in (6, 4))
        weights = torch.rand(90, generator=generator, dtype=torch.float64)
        cotangents = tuple(torch.randn(90, w, generator=generator, dtype=torch.float64) for w in (1, 3))
        if is_mine(number):
            found.append(Batch(inputs, weights, cotangents, number))
    return found


def convert() -> dict[str, Tensor]:
    moments = gather_moments(teacher(), batches, [*PLAN])
    metrics = {name: m.metric for name, m in moments.items()}
    student, reports = convert_graph(teacher(), batches, PLAN, ConversionConfig(), metrics=metrics)
    student.requires_grad_(False)
    found = {f"curve {name}": m.curve() for name, m in moments.items()}
    for number, value in enumerate(student(torch.ones(1, 6).double(), torch.ones(1, 4).double())):
        found[f"output {number}"] = value
    found["errors"] = torch.tensor([r.relative_error for r in reports], dtype=torch.float64)
    return {**student.state_dict(), **found}


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Each makes half of the batches; outputs, weights, curves and errors agree to 1e-9 of their size."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, __file__, str(tmp_path / "rendezvous")]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / f"{rank}.pt")], env=environment) for rank in (0, 1)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    alone = convert()
    for rank in (0, 1):
        together = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert together["batches"] == 5
        assert together["said"] == "first"
        for name, value in alone.items():
            # rows see inputs of lower rank than they have entries; rounding is largest where nothing depends on it
            tolerance = 1e-8 if "projection" in name else 1e-9
            scale = value.double().abs().max().clamp_min(1e-3).item()
            torch.testing.assert_close(together[name], value, rtol=0, atol=tolerance * scale, msg=name)


class Memory:
    """Keeps layers, and fails when one too many is kept."""

    def __init__(self, limit: int) -> None:
        self.kept: dict[str, tuple[dict[str, Tensor], LayerReport]] = {}
        self.limit = limit

    def load(self, name: str) -> tuple[dict[str, Tensor], LayerReport] | None:
        return self.kept.get(name)

    def save(self, name: str, state: Mapping[str, Tensor], report: LayerReport) -> None:
        if len(self.kept) == self.limit:
            raise KeyboardInterrupt
        self.kept[name] = ({k: v.clone() for k, v in state.items()}, report)


def test_what_was_stopped_goes_on_and_ends_alike() -> None:
    whole, reports = convert_graph(teacher(), batches, PLAN, ConversionConfig())
    store = Memory(limit=2)
    with pytest.raises(KeyboardInterrupt):
        convert_graph(teacher(), batches, PLAN, ConversionConfig(), store=store)
    assert list(store.kept) == ["trunk_0", "trunk_1"]
    calls = 0

    def counted() -> list[Batch]:
        nonlocal calls
        calls += 1
        return batches()

    store.limit = 9
    resumed, again = convert_graph(teacher(), counted, PLAN, ConversionConfig(), store=store)
    assert calls == 2, "only what was not kept is fitted"
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)
    assert [(r.name, r.relative_error, r.ridge) for r in again] == [
        (r.name, r.relative_error, r.ridge) for r in reports
    ]


def test_one_process_is_all_there_is() -> None:
    value = torch.ones(3)
    assert summed(value) is value
    assert (process_count(), process_index()) == (1, 0)
    assert first_process_value("mine") == "mine"
    assert all(is_mine(number) for number in range(5))


def test_a_gpu_that_is_named_goes_before_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """nerfstudio's launcher leaves the first GPU as the current one of all processes, and NCCL needs one for each."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    devices = [torch.device("cuda", 1), torch.device("cpu")]
    for backend, expected in (("nccl", ["cuda:1", "cuda:3"]), ("gloo", ["cpu", "cpu"])):
        monkeypatch.setattr(torch.distributed, "get_backend", lambda backend=backend: backend)
        assert [str(_exchange_device(device)) for device in devices] == expected


def main(rendezvous: str, rank: int, output: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    found: dict[str, object] = dict(convert())
    found["batches"] = len(batches())
    found["said"] = first_process_value("first" if rank == 0 else "second")
    try:
        convert_graph(teacher(), batches, {"trunk_0": 3}, ConversionConfig(train_steps=2))
    except ConfigError:
        torch.save(found, output)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
