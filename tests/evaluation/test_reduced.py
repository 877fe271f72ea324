"""Runs compared once more in less precise arithmetic."""

from pathlib import Path

import pytest
import torch

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.inference.int8 import exact_int8
from eugen_nerf.evaluation.compare import evaluate
from eugen_nerf.evaluation.costs.reduced_precision import parse_reduced
from eugen_nerf.evaluation.protocol import Timing

QUICK = Timing(warmup=0, repeats=1, num_queries=64, chunk_size=32, split_repeats=1, train_iterations=1)


def test_rows_of_their_own(tiny_dense_run: Path, tiny_eugen_run: Path) -> None:
    words = ("a:bfloat16", "a:int8", "b:int8")
    found = evaluate([tiny_dense_run, tiny_eugen_run], names=["a", "b"], timing=QUICK, device="cpu", reduced=words)
    rows = {row["variant"]: row for row in found.rows}
    assert list(rows) == ["a", "a bfloat16", "a int8", "b", "b int8", "mean-image", "white"]
    for name in ("a bfloat16", "a int8"):
        assert rows[name]["predictions_sha256"] != rows["a"]["predictions_sha256"]
        assert abs(rows[name]["psnr"] - rows["a"]["psnr"]) < 1
        assert rows[name]["macs_per_query"] == rows["a"]["macs_per_query"]
        assert rows[name]["iteration_seconds"] is None, "nothing trains in it"
        assert rows[name]["query_speed_ratio"] > 0
    assert any(note.startswith("a bfloat16: weights, features and products in bfloat16") for note in found.notes)
    assert f"a int8: {exact_int8(torch.device('cpu'))}" in found.notes
    assert rows["b"]["iteration_seconds"] > 0


def test_what_cannot_be_reduced_is_noted_or_refused(
    tiny_dense_run: Path, tiny_stock_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eugen_nerf.core.inference.int8.has_int8", lambda device: False)
    found = evaluate([tiny_dense_run], names=["a"], timing=QUICK, device="cpu", reduced=("a:int8", "a:bfloat16"))
    assert [row["variant"] for row in found.rows][:2] == ["a", "a bfloat16"]
    assert any(note.startswith("a int8 left out: torch has no int8 products") for note in found.notes)
    with pytest.raises(ConfigError, match=r"--reduced takes runs of the eugen-\* methods, and 'stock' is none"):
        evaluate([tiny_stock_run], names=["stock"], timing=QUICK, device="cpu", reduced=("stock:bfloat16",))


@pytest.mark.parametrize("word", ["a", "c:int8", "a:float8", ":int8"])
def test_words_that_name_nothing_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"is no RUN:PRECISION; runs are a, b, precisions bfloat16, int8"):
        parse_reduced([word], ["a", "b"])


def test_names_with_colons() -> None:
    assert parse_reduced(["x:y:int8"], ["x:y"]) == [("x:y", "int8")]
    with pytest.raises(ConfigError, match="names one row twice"):
        parse_reduced(["a:int8", "a:int8"], ["a"])
