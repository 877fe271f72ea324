"""TF32 is for the products of networks, forward and backward, and for nothing else in the process.

The switch can be turned without a GPU; that the CPU counts as CUDA here only makes the fields turn it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from test_mixed_precision import make_model, make_rays, step

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.training.mixed_precision import full_precision
from eugen_nerf.core.training.tf32 import float32_products
from eugen_nerf.fields.graph_field import GraphField

INFERENCE = EvaluationMode.INFERENCE
SMALL = ["eugen-nerf-small", "eugen-zipnerf-small", "eugen-dnerf-small", "eugen-isdf-small"]


def switch() -> bool:
    """Whether TF32 is on, by the name that this torch has for it."""
    matmul = torch.backends.cuda.matmul
    return matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32


@pytest.fixture(autouse=True)
def _no_warning_and_nothing_left() -> Iterator[None]:
    assert not switch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert not switch()
    assert torch.get_float32_matmul_precision() == "highest", "the older name can still be read"


@pytest.fixture
def as_if_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    own = GraphField._multiplies_tf32
    monkeypatch.setattr(GraphField, "_multiplies_tf32", lambda self, _, mode: own(self, torch.device("cuda"), mode))


@pytest.mark.parametrize("arithmetic", ["fast", "exact", "bfloat16"])
@pytest.mark.parametrize("method", SMALL)
def test_networks_alone_multiply_in_tf32(method: str, arithmetic: str, as_if_cuda: None) -> None:
    model = make_model(method, lambda settings: setattr(settings, "arithmetic", arithmetic))
    inside, outside, backward = [], [], []
    for field in model.graph_fields().values():
        field.network.register_forward_hook(lambda *_: inside.append(switch()))
        for name in ("encoder", "encoding", "position_encoding"):
            if hasattr(field, name):
                getattr(field, name).register_forward_hook(lambda *_: outside.append(switch()))
        for parameter in field.network.parameters():
            parameter.register_hook(lambda _: backward.append(switch()))
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # those of nerfstudio's training step are its own
        step(model, None)
    expected = arithmetic != "exact"
    assert inside
    assert set(inside) == set(backward) == {expected}
    assert outside
    assert not any(outside)
    inside.clear()
    with torch.no_grad():
        model.eval()(make_rays())
    assert set(inside) <= {expected}
    assert not switch()


def test_a_cpu_and_a_field_without_a_model_never_turn_it(monkeypatch: pytest.MonkeyPatch) -> None:
    field = make_model("eugen-nerf-small").graph_fields()["coarse"]
    assert not field._multiplies_tf32(torch.device("cpu"), INFERENCE)
    assert field._multiplies_tf32(torch.device("cuda"), INFERENCE)
    field.arithmetic = None
    assert not field._multiplies_tf32(torch.device("cuda"), INFERENCE)


def test_a_plan_brings_its_own_precision() -> None:
    field = make_model("eugen-nerf-small").graph_fields()["coarse"]
    field.network.plan = field.network.collapsed()
    assert not field._multiplies_tf32(torch.device("cuda"), INFERENCE)
    assert field._multiplies_tf32(torch.device("cuda"), EvaluationMode.DIFFERENTIABLE), (
        "training goes on without the plan"
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_full_precision_holds_where_a_user_has_tf32_on(legacy: bool) -> None:
    """Whichever name it was set by, it reads and stands as before afterwards."""
    if legacy:
        torch.set_float32_matmul_precision("high")
    elif hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    else:
        torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with full_precision():
            assert not switch()
            with float32_products("tf32"):
                assert switch()
                with full_precision():
                    assert not switch()
                assert switch()
            assert not switch()
        assert switch()
        if legacy:
            assert torch.get_float32_matmul_precision() == "high"
    finally:
        if legacy:
            torch.set_float32_matmul_precision("highest")
        elif hasattr(torch.backends.cuda.matmul, "fp32_precision"):
            torch.backends.cuda.matmul.fp32_precision = "none"
        else:
            torch.backends.cuda.matmul.allow_tf32 = False


def test_the_switch_is_turned_back_after_an_error_and_by_the_last_of_several() -> None:
    with pytest.raises(RuntimeError, match="mine"), float32_products("tf32"):
        raise RuntimeError("mine")
    assert not switch()
    first, second = float32_products("tf32"), float32_products("tf32")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert not switch()
