"""eugen-eval by plans and with shortcuts: what a report says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_eval_command import Result, run_command

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.evaluation.costs.inference_modes import apply_inference, random_rays
from eugen_nerf.evaluation.protocol import Inference
from eugen_nerf.methods.runs.loading import load_run

PLAN = ("--plan-backend", "eager", "--plan-dtype", "bfloat16", "--no-auxiliary-outputs")


@pytest.fixture(scope="module")
def results(tiny_eugen_run: Path, tiny_dense_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    runs = [tiny_eugen_run, tiny_dense_run]
    return {
        "plain": run_command(runs, tmp_path_factory.mktemp("plain")),
        "planned": run_command(runs, tmp_path_factory.mktemp("planned"), *PLAN, "--reduced", "dense:bfloat16"),
        "short": run_command(
            runs,
            tmp_path_factory.mktemp("short"),
            "--early-stop",
            "0.01",
            "--skip-empty",
            "6",
            "--plan-backend",
            "eager",
        ),
    }


def test_without_flags_nothing_is_planned(results: dict[str, Result]) -> None:
    assert all(row["plans"] is row["shortcuts"] is None for row in results["plain"].rows)
    settings = {"backend": "none", "dtype": "float32", "extras": True, "opaque": 0.0, "empty": 0, "drop_norm": 0.0}
    assert results["plain"].protocol["inference"] == settings
    assert "inference plans" not in results["plain"].printed


def test_plans_are_stated_for_every_network_of_every_run(results: dict[str, Result]) -> None:
    found = results["planned"]
    assert found.protocol["inference"]["backend"] == "eager"
    for row in found.rows[:2]:
        assert row["plans"].keys() == {"coarse", "fine"}
        for plan in row["plans"].values():
            assert plan["dtype"] == "bfloat16"
            assert 0 < plan["deviation"] < 1
            assert plan["statement"] in found.page
        assert row["shortcuts"] is None
    reduced = found.rows[2]
    assert (reduced["variant"], reduced["plans"]) == ("dense bfloat16", None), "it has its own arithmetic"
    assert "inference plans" in found.printed
    for planned, plain in zip(found.rows[:2], results["plain"].rows[:2], strict=True):
        assert planned["psnr"] == pytest.approx(plain["psnr"], abs=0.1)


def test_what_shortcuts_change_is_stated(results: dict[str, Result]) -> None:
    found = results["short"]
    assert found.protocol["inference"]["empty"] == 6
    for row in found.rows[:2]:
        stated = row["shortcuts"]
        assert 0 <= stated["occupied_share"] <= 1
        assert stated["grid_seconds"] > 0
        assert abs(stated["psnr_change"]) < 3
        assert "psnr_between" in stated
        assert "with" not in stated
    assert "approximations" in found.printed


def test_a_run_of_a_stock_method_is_refused(tiny_stock_run: Path) -> None:
    run = load_run(tiny_stock_run, device="cpu")
    with pytest.raises(ConfigError, match="'stock' is none"):
        apply_inference({"stock": run}, Inference("eager"), [0], [])
    assert apply_inference({"stock": run}, Inference(), [0], []) == {"stock": {"plans": None, "shortcuts": None}}
    rays = random_rays(run, [0, 1], 5)
    assert rays.origins.shape == (10, 3)
    assert rays.nears is not None


def test_plans_of_a_gpu_that_torch_cannot_use(tiny_eugen_run: Path, tiny_dense_run: Path, tmp_path: Path) -> None:
    """Where WebGPU finds none, the report says so and the networks are evaluated all the same."""
    found = run_command([tiny_eugen_run, tiny_dense_run], tmp_path, "--plan-backend", "wgpu", "--plan-dtype", "float16")
    for plan in (plan for row in found.rows[:2] for plan in row["plans"].values()):
        assert plan["backend"] == "wgpu" or plan["fallback"].startswith("not wgpu: ")
        assert plan["deviation"] < 0.1


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="give --plan-backend eager"):
        Inference(plan_dtype="bfloat16")
    with pytest.raises(ConfigError, match="give --plan-backend wgpu"):
        Inference(plan_dtype="float16")
    with pytest.raises(ConfigError, match="by wgpu are in float32 or float16, not in bfloat16"):
        Inference("wgpu", "bfloat16")
    with pytest.raises(ConfigError, match="--early-stop must be at least 0 and below 1"):
        Inference(early_stop=1.5)
    with pytest.raises(ConfigError, match="not -3"):
        Inference(skip_empty=-3)
