"""Costs of single operations, against numbers counted by hand."""

import pytest
import torch
from torch import Tensor, nn

from eugen_nerf.evaluation.roofline.cards import CARDS, Card
from eugen_nerf.evaluation.roofline.counter import OperationCounter, kept_tensors
from eugen_nerf.evaluation.roofline.operations import Operation

N, IN, OUT = 7, 3, 5


def operations(counter: OperationCounter) -> dict[str, Operation]:
    found = {counted.operation.name.removeprefix("aten::"): counted.operation for counted in counter.operations}
    assert len(found) == len(counter.operations), "each of them once"
    return found


def test_a_linear_layer_forward_and_backward() -> None:
    layer, x = nn.Linear(IN, OUT), torch.randn(N, IN, requires_grad=True)
    with OperationCounter() as forward:
        y = layer(x)
    assert operations(forward) == {
        "addmm": Operation("aten::addmm", "float32", 4 * (OUT + N * IN + IN * OUT + N * OUT), 2 * N * IN * OUT)
    }
    with OperationCounter() as backward:
        y.backward(torch.ones_like(y.detach()))
    names = [counted.operation.name for counted in backward.operations]
    products = [c.operation for c in backward.operations if c.operation.name == "aten::mm"]
    assert [p.flops for p in products] == [2 * N * IN * OUT] * 2, "one for the input and one for the weights"
    assert {p.bytes for p in products} == {4 * (N * OUT + IN * OUT + N * IN)}
    assert names.count("aten::sum") == 1, "of the bias"
    assert all(c.backward for c in backward.operations if c.operation.name in ("aten::mm", "aten::sum"))


def test_views_and_empty_tensors_cost_nothing() -> None:
    x = torch.zeros(4, 6)
    with OperationCounter() as counter:
        x.T.reshape(24)[:2].expand(6, 2).detach()
        x[:, :3].unsqueeze(0)
        torch.empty(3)
        x.sum().item()
    assert operations(counter).keys() == {"sum", "clone"}, "reshape copies what it cannot view"


def test_what_is_repeated_is_read_once_and_what_is_overwritten_is_not_read() -> None:
    x, row = torch.zeros(8, 3), torch.zeros(1, 3)
    with OperationCounter() as counter:
        torch.add(x, row.expand(8, 3))
        x.mul_(x)
        x.zero_()
    found = operations(counter)
    assert found["add"].bytes == 4 * (24 + 3 + 24)
    assert found["mul_"].bytes == 4 * (24 + 24)
    assert found["zero_"].bytes == 4 * 24


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
def test_gathered_rows_of_a_table(index_dtype: torch.dtype) -> None:
    table, index = torch.zeros(1000, 20), torch.zeros(6, dtype=index_dtype)
    with OperationCounter() as counter:
        nn.functional.embedding(index, table)
    (found,) = operations(counter).values()
    assert found.bytes == 6 * 80 + 6 * index_dtype.itemsize + 6 * 80, "rows, indices, result"
    assert found.sectors == 6 * 3, "80 bytes are three sectors of 32"
    small = torch.zeros(2, 20)
    with OperationCounter() as counter:
        nn.functional.embedding(index.clamp_max(1), small)
    assert operations(counter)["embedding"].bytes == 2 * 80 + 6 * index_dtype.itemsize + 6 * 80, (
        "no more than the table"
    )


def test_rows_by_index_and_what_is_added_to_them() -> None:
    table = torch.zeros(100, 4, requires_grad=True)
    rows = torch.tensor([3, 3, 7])
    with OperationCounter() as counter:
        found = table[rows]
        found.sum().backward()
    costs = operations(counter)
    assert costs["index"].sectors == 3
    assert costs["index"].bytes == 2 * 3 * 16 + 3 * 8
    adding = next(cost for name, cost in costs.items() if "index_put" in name)
    assert adding.atomics == 12


def test_sums_at_random_places_touch_what_is_added_alone() -> None:
    target, index, values = torch.zeros(1000), torch.tensor([1, 5, 5]), torch.ones(3)
    with OperationCounter() as counter:
        target.scatter_add_(0, index, values)
    (found,) = operations(counter).values()
    assert found.atomics == 3
    assert found.bytes == 3 * 8 + 3 * 4 + 2 * 3 * 4, "indices, values, and the places read and written"


def adam(parameters: list[Tensor], *, fused: bool) -> list[Operation]:
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer = torch.optim.Adam(parameters, fused=fused, foreach=not fused)
    optimizer.step()
    with OperationCounter() as counter:
        optimizer.step()
    return [c.operation for c in counter.operations if c.part == "optimizer"]


def test_fused_adam_reads_four_numbers_a_weight_and_writes_three() -> None:
    sizes = (1000, 24)
    found = adam([torch.zeros(n, requires_grad=True) for n in sizes], fused=True)
    (step,) = (o for o in found if o.name == "aten::_fused_adam_")
    assert step.bytes == 4 * 7 * sum(sizes) + 4 * len(sizes), "and one step counter a tensor"


def test_adam_on_all_tensors_at_once_launches_as_often_for_two_as_for_five() -> None:
    two, five = (adam([torch.zeros(4, requires_grad=True) for _ in range(n)], fused=False) for n in (2, 5))
    assert [o.name for o in two] == [o.name for o in five]
    assert 5 <= len(two) <= 12


def test_what_is_kept_for_the_backward_pass() -> None:
    layer, x = nn.Linear(IN, OUT), torch.randn(N, IN)
    with kept_tensors(layer) as kept:
        layer(x).sigmoid()
    assert sum(s.nbytes() for s in kept.values()) == 4 * (N * IN + N * OUT), "input and result, no weights"


def test_the_slowest_limit_is_what_an_operation_takes() -> None:
    card = Card("toy", bandwidth=100.0, products={"float32": 10.0, "tf32": 50.0}, launch=1.0, gathered_sectors=4.0)
    times = card.times(Operation("aten::mm", "float32", bytes=300, flops=100, sectors=8), "float32")
    assert times == {"launch": 1.0, "memory": 3.0, "products": 10.0, "gathers": 2.0, "atomics": 0.0}
    assert card.times(Operation("aten::mm", "float32", bytes=300, flops=100), "tf32")["products"] == 2.0
    assert CARDS["H200"].bandwidth > CARDS["H100"].bandwidth
