"""The grid interpolated by tiny-cuda-nn: a stand-in made of its published formulas shows that one table serves both."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from frustums import random_samples
from torch import Tensor, nn

from eugen_nerf.core import HashGrid
from eugen_nerf.fields import tcnn_grid
from eugen_nerf.fields.tcnn_grid import TcnnHashGrid
from eugen_nerf.fields.zipnerf import ZipNeRFFieldConfig

RESOLUTIONS, LOG2 = (4, 8, 16, 32), 10  # 64 and 512 vertices are indexed densely, 4096 and 32768 hashed into 1024 rows
CONFIG = ZipNeRFFieldConfig(trunk_width=12, head_width=8, num_features=(6,), max_resolution=64, log2_table_size=LOG2)


class Encoding(nn.Module):
    """`tinycudann.Encoding` of a hash grid as `include/tiny-cuda-nn/encodings/grid.h` has it, a point at a time.

    Like it, it holds all features in one flat parameter, `params`, drawn from its own seed.
    """

    def __init__(self, n_input_dims: int, encoding_config: dict[str, Any], seed: int = 1337, dtype: Any = None) -> None:
        super().__init__()
        assert n_input_dims == 3
        assert (encoding_config["otype"], encoding_config["interpolation"]) == ("HashGrid", "Linear")
        assert dtype is torch.float32, "half precision is its default"
        self.features = encoding_config["n_features_per_level"]
        self.levels: list[tuple[float, int, int]] = []
        for level in range(encoding_config["n_levels"]):
            scale = (
                2 ** (level * math.log2(encoding_config["per_level_scale"])) * encoding_config["base_resolution"] - 1
            )
            resolution = math.ceil(scale) + 1
            rows = min((resolution**3 + 7) // 8 * 8, 1 << encoding_config["log2_hashmap_size"])
            self.levels.append((scale, resolution, rows))
        total = sum(rows for *_, rows in self.levels)
        generator = torch.Generator().manual_seed(seed)
        self.params = nn.Parameter(torch.rand(total * self.features, generator=generator) * 2e-4 - 1e-4)

    @staticmethod
    def row(corner: list[int], resolution: int, size: int) -> int:
        stride, index = 1, 0
        for coordinate in corner:
            if stride > size:
                break
            index += coordinate * stride
            stride *= resolution
        if size < stride:
            index = 0
            for coordinate, prime in zip(corner, (1, 2654435761, 805459861), strict=True):
                index ^= coordinate * prime % 2**32
        return index % size

    def forward(self, x: Tensor) -> Tensor:
        table, found = self.params.view(-1, self.features), []
        for point in x.tolist():
            start = 0
            for scale, resolution, size in self.levels:
                position = [scale * v + 0.5 for v in point]
                low = [math.floor(p) for p in position]
                feature = torch.zeros(self.features)
                for step in product((0, 1), repeat=3):
                    weight = math.prod(p - c if s else 1 - p + c for p, c, s in zip(position, low, step, strict=True))
                    row = self.row([c + s for c, s in zip(low, step, strict=True)], resolution, size)
                    feature = feature + weight * table[start + row]
                found.append(feature)
                start += size
        return torch.stack(found).reshape(len(x), -1)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within it, tiny-cuda-nn seems to be installed."""
    monkeypatch.setattr(tcnn_grid, "tcnn", SimpleNamespace(Encoding=Encoding))
    monkeypatch.setattr(tcnn_grid, "TCNN_EXISTS", True)
    monkeypatch.setattr(tcnn_grid, "_DEVICES", ("cpu",))


def pair(features: int = 2) -> tuple[HashGrid, TcnnHashGrid]:
    """Both grids with the same state."""
    torch_grid, tcnn_one = (kind(RESOLUTIONS, features, LOG2) for kind in (HashGrid, TcnnHashGrid))
    torch.manual_seed(0)
    nn.init.normal_(torch_grid.table)
    tcnn_one.load_state_dict(torch_grid.state_dict())
    return torch_grid, tcnn_one


def groups(n: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Groups of six Gaussians, some means on the cube's border and beyond."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(n, 6, 3, generator=generator) * 1.1 - 0.05
    points[0, :2] = torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 1.0]])
    return points, 10 ** (torch.rand(n, 6, generator=generator) * 3 - 3)


@pytest.mark.parametrize("features", [1, 2, 4])
def test_same_features_and_gradients_from_the_same_table(features: int, stand_in: None) -> None:
    ours, theirs = pair(features)
    assert ours.state_dict().keys() == theirs.state_dict().keys() == {"table"}
    assert torch.equal(ours.state_dict()["table"], theirs.state_dict()["table"])
    assert [name for name, _ in theirs.named_parameters()] == ["table"]
    outputs = [grid(*groups()) for grid in (ours, theirs)]
    assert outputs[0].shape == (5, 4 * (features + 1))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-4)
    assert outputs[0].std() > 1
    for output in outputs:
        (output * torch.linspace(1, 2, output.numel()).view_as(output)).sum().backward()
    assert (theirs.table.grad != 0).sum() > 100
    torch.testing.assert_close(theirs.table.grad, ours.table.grad, rtol=1e-4, atol=1e-4)


def test_each_level_is_found_in_its_own_rows(stand_in: None) -> None:
    """Levels of constant features: a table taken in another order would give another constant."""
    _, grid = pair(features=2)
    with torch.no_grad():
        for number, rows in enumerate(grid.table.split(grid.sizes), start=1):
            rows[:, 0], rows[:, 1] = number, -10 * number
    pooled = grid.pool(groups()[0], torch.ones(1, 5, 6))
    expected = torch.tensor([[[number, -10.0 * number] for number in (1, 2, 3, 4)]]).expand(5, 4, 2)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)


def test_a_changed_table_is_seen_at_once(stand_in: None) -> None:
    ours, theirs = pair()
    theirs(*groups()).sum().backward()
    torch.optim.SGD(theirs.parameters(), lr=0.1).step()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(theirs(*groups()), ours(*groups()), rtol=1e-5, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(*groups()), ours(*groups()), rtol=1e-5, atol=1e-4)


def test_a_field_with_either_grid_is_the_same_field(stand_in: None) -> None:
    torch_field = CONFIG.setup(variant="eugen").eval()
    tcnn_field = replace(CONFIG, grid="tcnn").setup(variant="eugen").eval()
    assert type(tcnn_field.grid) is TcnnHashGrid
    assert type(torch_field.grid) is HashGrid
    nn.init.normal_(torch_field.grid.table, std=0.05)
    state = torch_field.state_dict()
    assert state.keys() == tcnn_field.state_dict().keys()
    tcnn_field.load_state_dict(state)
    assert torch_field.inference_parameters() == tcnn_field.inference_parameters()
    samples = random_samples(rays=2, samples=3)
    with torch.no_grad():
        found, expected = tcnn_field(samples), torch_field(samples)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


def test_a_field_that_has_been_used_can_be_copied(stand_in: None) -> None:
    field = replace(CONFIG, grid="tcnn").setup(variant="eugen").train()
    samples = random_samples(rays=1, samples=2)
    field(samples)
    other = copy.deepcopy(field).eval()
    nn.init.normal_(other.grid.table)
    field.eval()
    with torch.no_grad():
        before = field.encode(samples)[0]
        assert not torch.allclose(other.encode(samples)[0], before)
        torch.testing.assert_close(field.encode(samples)[0], before)


def test_a_field_of_tinycudann_opens_without_it_and_back(
    stand_in: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same settings and state where it is not installed: the same outputs, and one line that says so."""
    config = replace(CONFIG, grid="tcnn")
    trained, samples = config.setup(variant="eugen").eval(), random_samples(rays=2, samples=3)
    nn.init.normal_(trained.grid.table, std=0.05)
    with torch.no_grad():
        expected = trained(samples)
    with monkeypatch.context() as laptop:
        laptop.setattr(tcnn_grid, "TCNN_EXISTS", False)
        laptop.setattr(tcnn_grid, "tcnn", None)
        tcnn_grid._print_fallback_once.cache_clear()
        opened = [config.setup(variant="eugen").eval() for _ in range(2)]
    said = " ".join(capsys.readouterr().out.split())
    assert said == "tinycudann is not installed: PyTorch interpolates the same hash grids, more slowly"
    assert [type(field.grid) for field in opened] == [HashGrid, HashGrid]
    opened[0].load_state_dict(trained.state_dict())
    with torch.no_grad():
        found = opened[0](samples)
        nn.init.normal_(opened[0].grid.table, std=0.05)
        trained.load_state_dict(opened[0].state_dict())
        back, changed = trained(samples), opened[0](samples)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(back[key], changed[key], rtol=1e-4, atol=1e-5)


def test_points_on_a_cpu_are_interpolated_by_torch(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tinycudann is installed, for `--device cpu`."""
    ours, theirs = pair()
    monkeypatch.setattr(tcnn_grid, "_DEVICES", ("cuda",))
    monkeypatch.setattr(Encoding, "forward", None)
    assert torch.equal(theirs(*groups()), ours(*groups()))
