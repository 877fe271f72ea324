"""Speed tables: what is counted, who is compared with whom, and that every row computes what it says."""

from __future__ import annotations

import pytest
import torch

from eugen_nerf.benchmarks.hardware import copy_bandwidth, matmul_peak
from eugen_nerf.benchmarks.network_speed import FAMILIES, Family, contenders_of, encoded_inputs, networks_of
from eugen_nerf.benchmarks.query_speed import best_rows, measure_peaks, queries_for, rows_of, table_lines
from eugen_nerf.benchmarks.training_speed import measure_training, training_steps
from eugen_nerf.core import NeRFShape
from eugen_nerf.core.inference.norm_folding import fold_norms

CPU = torch.device("cpu")
TINY = Family("tiny", NeRFShape(9, 5, 3, 32, (1,), 0, 1, 16), ("trunk_.*",), features=(12, 8))
DISTANCE = Family(
    "d", NeRFShape(9, 0, 3, 32, (1,), head_width=0, output="distance"), ("trunk_.*",), (12,), gradient=True
)
PEAKS = {"float32": 1e9, "bfloat16": 2e9, "copy": 1e9}


def test_the_architectures_are_the_published_ones() -> None:
    macs = {f.name: networks_of(f, CPU)["dense"].multiply_adds() for f in FAMILIES if "360" not in f.name}
    assert macs["NeRF 8x256"] == 544_256
    assert macs["Zip-NeRF head"] == 92_864  # with the linear bottleneck merged
    assert macs["iSDF 4x256, value and gradient"] == 255 * 256 + 256 * 256 + 511 * 256 + 256 * 256 + 256


def test_the_published_network_pays_for_its_norms_as_a_trained_one_does() -> None:
    family = next(f for f in FAMILIES if f.name == "Zip-NeRF head")
    network = networks_of(family, CPU)["EUGen as published"]
    graph = network.collapse()
    norms = [stage.norm for stage, _ in graph.steps if stage.norm is not None]
    assert len(norms) == 1
    assert bool(norms[0].all())
    left = fold_norms(graph, encoded_inputs(network.input_widths, 64, CPU), 0.0)
    assert (left.dropped, left.total) == (0, 1)


@pytest.mark.parametrize("family", [TINY, DISTANCE])
def test_rows(family: Family) -> None:
    inputs = encoded_inputs((9,) if family.gradient else (9, 5), 100, CPU)
    field = contenders_of(family, inputs, compiled=False, chunk=32)
    rows = rows_of(field, PEAKS, CPU, warmup=0, repeats=3)
    best = [row for row in rows if row["best_dense"]]
    assert len(best) == 1
    assert best[0]["name"].startswith("dense, ")
    assert best[0]["ratio"] == 1.0
    dense = [row for row in rows if row["name"].startswith("dense")]
    assert min(sorted(row["seconds"])[1] for row in dense) == sorted(best[0]["seconds"])[1]
    for row in rows:
        per_query = 2 * row["multiply_adds"] * (2 if family.gradient else 1)
        assert row["flops"] == per_query
        assert row["share_of_peak"] == pytest.approx(per_query * 100 / min(row["seconds"]) / PEAKS[row["dtype"]])
        assert row["queries_per_second"] == pytest.approx(100 / sorted(row["seconds"])[1])
        assert row["ratio_quartiles"][0] <= row["ratio"] <= row["ratio_quartiles"][1]
    lines = table_lines(rows)
    assert len(lines) == 2 + len(rows)
    assert sum(" *" in line for line in lines[2:]) == 1
    assert best_rows(rows).keys() == {row["name"].rsplit(", ", 1)[0] for row in rows}


def test_plans_among_the_rows_state_their_deviation_and_keep_it() -> None:
    inputs = encoded_inputs((9, 5), 100, CPU)
    field = contenders_of(TINY, inputs, compiled=False)
    for contender in field.contenders:
        if contender.deviation is None:
            continue
        with torch.no_grad():
            expected = contender.network(*inputs)
        found = contender.work()
        assert isinstance(found, tuple)
        for y, own in zip(found, expected, strict=True):
            assert float((y - own).abs().max()) <= contender.deviation + 1e-5
    assert {c.dtype for c in field.contenders} == {torch.float32, torch.bfloat16}


def test_what_is_left_out_is_missing_and_named() -> None:
    inputs = encoded_inputs((9, 5), 20, CPU)
    every = contenders_of(TINY, inputs, compiled=False)
    fewer = contenders_of(TINY, inputs, compiled=False, left_out={("EUGen m=8", "eager", "bfloat16")})
    gone = {c.name for c in every.contenders} - {c.name for c in fewer.contenders}
    assert gone == {"EUGen m=8, eager plan bfloat16"}
    assert fewer.notes == ["EUGen m=8, eager plan bfloat16: left out"]


def test_training_steps_differentiate_every_network() -> None:
    for family in (TINY, DISTANCE):
        steps, queries = training_steps(family, CPU, scale=1e-6)
        assert steps.keys() == networks_of(family, CPU).keys()  # none is compiled unless named
        rows = measure_training(family, CPU, scale=1e-6, repeats=2)
        assert [row["name"] for row in rows] == list(steps)
        assert {row["queries"] for row in rows} == {queries}
        assert rows[0]["ratio"] == 1.0


def test_bytes_are_counted_by_hand() -> None:
    inputs = encoded_inputs((9, 5), 100, CPU)
    dense = contenders_of(TINY, inputs, compiled=False, chunk=32).contenders[0]
    # steps read 9; 9 + 32; 32; 5 + 32 and make 32, 32, 32, 16; outputs are 1 and 3 wide
    between = 9 + 41 + 32 + 37 + 3 * 32 + 16
    weights = 9 * 32 + 41 * 32 + 32 * 32 + 37 * 16 + 32 + 3 * 16 + 3 * 32 + 16 + 4
    assert dense.traffic(100, False) == pytest.approx(4 * (9 + 5 + 4 + between + weights / 32))


def test_inputs_and_counts_are_the_same_everywhere() -> None:
    first, again = encoded_inputs((3, 2), 50, CPU), encoded_inputs((3, 2), 50, CPU)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(float(x.abs().max()) <= 1 for x in first)
    assert queries_for(544_256, CPU) == 1 << 15
    assert queries_for(10**12, CPU) == 1 << 8


def test_peaks_are_plausible() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert 1e8 < matmul_peak(CPU, dtype, repeats=1) < 1e14
    assert 1e7 < copy_bandwidth(CPU, repeats=1) < 1e13


def test_all_peaks_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eugen_nerf.benchmarks.query_speed.matmul_peak", lambda device, dtype: 1.0)
    monkeypatch.setattr("eugen_nerf.benchmarks.query_speed.copy_bandwidth", lambda device: 2.0)
    assert measure_peaks(CPU) == {"float32": 1.0, "bfloat16": 1.0, "copy": 2.0}
