"""Parameters, multiply-adds and memory against counts made by hand."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from torch import nn

from eugen_nerf.evaluation.costs.resources import count_parameters, fit_seconds, peak_memory, tf32_note
from eugen_nerf.fields.counting import macs_per_query
from eugen_nerf.methods.graph_model import GraphModel


def test_macs_of_a_nerf_field_by_hand() -> None:
    """3 -> 16 -> 16 (skip: 19 -> 16), density 16 -> 1, colour head (16 + 3) -> 8 -> 8 -> 3; each once a query."""
    field = NeRFField(
        base_mlp_num_layers=3,
        base_mlp_layer_width=16,
        head_mlp_num_layers=2,
        head_mlp_layer_width=8,
        skip_connections=(1,),
    )
    expected = 3 * 16 + (16 + 3) * 16 + 16 * 16 + 16 * 1 + (16 + 3) * 8 + 8 * 8 + 8 * 3
    assert macs_per_query(field, "cpu") == (expected, "counted at the nn.Linear layers of a query")
    biases = 16 * 3 + 1 + 8 * 2 + 3
    assert count_parameters(field) == expected + biases
    assert not any(module._forward_hooks for module in field.modules())


def test_the_fields_own_count_wins() -> None:
    field = nn.Linear(3, 3)
    field.macs_per_query = lambda: 7  # type: ignore[assignment]
    assert macs_per_query(field, "cpu") == (7, "the field's own count")


def test_a_field_without_linear_layers_is_not_counted_as_free() -> None:
    macs, reason = macs_per_query(nn.Identity(), "cpu")
    assert macs is None
    assert "no nn.Linear" in reason


def test_frozen_parameters_are_not_trainable() -> None:
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert (count_parameters(layer), count_parameters(layer, trainable_only=True)) == (8, 6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_peak_memory_counts_live_tensors(mode) -> None:
    held = torch.zeros(5000)

    def work() -> torch.Tensor:
        first = held + 1  # 20,000 bytes
        second = first * 2  # both live: 40,000, the peak
        del first
        view = second[:100]  # no new storage
        second.mul_(3)
        return view.sum()

    with mode():
        assert peak_memory(work, "cpu") == 40_000
        assert peak_memory(work, "cpu") == 40_000  # it does not depend on what ran before


def test_peak_memory_counts_what_backward_keeps_and_makes() -> None:
    weights = torch.zeros(1000, requires_grad=True)

    def forward() -> torch.Tensor:
        return weights.exp().sin().sin().sum()  # three results of 4,000 bytes and a sum of 4

    with torch.no_grad():
        assert peak_memory(forward, "cpu") == 8_000  # each is gone when the next but one is made
    kept = 2 * 4_000  # of the three, those that backward needs: exp keeps its own result, each sin its input
    assert peak_memory(lambda: forward().detach(), "cpu") == kept + 4_000 + 4
    # at the first of backward's products: the kept two, the gradient of the sum, a cosine and the product
    assert peak_memory(lambda: forward().backward(), "cpu") == kept + 4 + 4 + 2 * 4_000


def test_seconds_are_what_the_record_says(tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    assert fit_seconds(config) is None
    (tmp_path / "distill.json").write_text('{"seconds": 2.5}')
    assert fit_seconds(config) == 2.5
    (tmp_path / "distill.json").write_text('{"seconds": 0.5, "calibration": {"seconds": 4.0}}')
    assert fit_seconds(config) == 4.5
    (tmp_path / "training.json").write_text('{"seconds": null}')  # trained, and nobody noted for how long
    assert fit_seconds(config) is None


def test_a_line_says_whose_networks_multiply_in_tf32() -> None:
    def model(arithmetic: str) -> GraphModel:
        settings = deepcopy(all_methods["eugen-nerf-small"].pipeline.model)
        settings.arithmetic = arithmetic
        settings.network.trunk_width, settings.network.num_features, settings.occupancy = 8, (4,), "none"
        return settings.setup(scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=1, metadata={})

    models = {"ours": model("fast"), "half": model("bfloat16"), "exact": model("exact"), "stock": nn.Linear(1, 1)}
    assert tf32_note(models, torch.device("cpu")) == []
    assert tf32_note({"stock": models["stock"], "exact": models["exact"]}, torch.device("cuda")) == []
    (line,) = tf32_note(models, torch.device("cuda"))
    assert "networks of ours, half multiply in TF32" in line
    assert "those of exact, stock in float32" in line
