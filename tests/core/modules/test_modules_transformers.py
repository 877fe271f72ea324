"""GPT-2 and BERT convert: small ones of random weights; where they are absent, a block of layers of their layout."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eugen_nerf.core import convert_
from eugen_nerf.core.errors import ConfigError

HINT = "transformers is not installed: pip install -c constraints.txt -e '.[huggingface]'"


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Conv1D(nn.Module):
    """`x W + b` with W `[d, l]`: a linear layer as GPT-2 stores it."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) / nx**0.5), nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], self.nf)


class Block(nn.Module):
    """GPT-2's block: attention and an MLP, both between layer norm and residual."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = Conv1D(3 * width, width), Conv1D(width, width)
        self.mlp_fc, self.mlp_proj = Conv1D(4 * width, width), Conv1D(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in self.c_attn(self.ln_1(x)).chunk(3, dim=-1))
        x = x + self.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.mlp_proj(F.gelu(self.mlp_fc(self.ln_2(x)), approximate="tanh"))


def hidden(*shape: int, count: int = 6) -> list[Tensor]:
    return [torch.randn(*(shape or (8, 12, 32))) for _ in range(count)]


def test_transposed_layers_convert_exactly_at_full_width() -> None:
    model, x = nn.Sequential(Block(), Block()).double(), [part.double() for part in hidden(24, 12, 32)]
    expected = model(x[0])
    report = convert_(model, x, num_features=1.0)
    assert [layer.name for layer in report.layers] == ["0.mlp_fc", "1.mlp_fc"]
    torch.testing.assert_close(model(x[0]), expected, rtol=1e-5, atol=1e-5)


def test_transposed_layers_keep_their_class_and_layout() -> None:
    model, x = Block(), hidden()
    with torch.no_grad():
        model.mlp_fc.weight[:, 64:], model.mlp_fc.bias[64:] = model.mlp_fc.weight[:, :64], model.mlp_fc.bias[:64]
    expected = model(x[0])
    report = convert_(model, x, num_features=64)
    assert (model.mlp_fc.weight.shape, model.mlp_proj.weight.shape) == ((32, 64), (64, 32))
    assert (model.mlp_fc.nf, model.mlp_fc.nx, model.mlp_proj.nf, model.mlp_proj.nx) == (64, 32, 32, 64)
    assert type(model.mlp_fc) is Conv1D
    torch.testing.assert_close(model(x[0]), expected, rtol=1e-3, atol=1e-3)
    assert report.multiply_adds == (32 * 96 + 32 * 32 + 2 * 32 * 128, 32 * 96 + 32 * 32 + 2 * 32 * 64)
    fresh = Block()
    fresh.mlp_fc, fresh.mlp_proj = Conv1D(64, 32), Conv1D(32, 64)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(x[0]), model(x[0]))
    assert "goes through attention" in report.skipped["c_attn"]
    assert "is added to another value" in report.skipped["c_proj"]


def test_refused_transposed_layers_stay() -> None:
    model = Block()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match="c_attn has an output that no linear layer reads"):
        convert_(model, hidden(), layers=("c_attn",))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def language_model(name: str) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason=HINT)
    shared = {"vocab_size": 50, "attn_implementation": "eager" if name == "GPT2LMHeadModel" else "sdpa"}
    if name.startswith("GPT2"):
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=16, **shared)
    else:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config = transformers.BertConfig(**sizes, max_position_embeddings=16, **shared)
    model = getattr(transformers, name)(config)
    with torch.no_grad():  # as far from 0 as weights that were trained
        for key, parameter in model.named_parameters():
            if "norm" not in key.lower() and "ln_" not in key:
                parameter.normal_(std=0.3)
    return model.eval()


def sentences(count: int = 10) -> list[dict[str, Tensor]]:
    return [
        {"input_ids": torch.randint(0, 50, (16, 12)), "attention_mask": (torch.arange(12) < 9).expand(16, 12).long()}
        for _ in range(count)
    ]


LAYERS = {
    "GPT2LMHeadModel": [f"transformer.h.{i}.mlp.c_fc" for i in range(2)],
    "GPT2Model": [f"h.{i}.mlp.c_fc" for i in range(2)],
    "BertModel": [f"encoder.layer.{i}.intermediate.dense" for i in range(2)],
    "BertForMaskedLM": [f"bert.encoder.layer.{i}.intermediate.dense" for i in range(2)],
    "BertForSequenceClassification": [
        *(f"bert.encoder.layer.{i}.intermediate.dense" for i in range(2)),
        "bert.pooler.dense",
    ],
}


@pytest.mark.parametrize("name", LAYERS)
def test_hugging_face_models_are_exact_at_full_width(name: str) -> None:
    model, x = language_model(name).double(), sentences()
    expected: Any = model(**x[0])
    report = convert_(model, x, num_features=1.0)
    assert [layer.name for layer in report.layers] == LAYERS[name]
    torch.testing.assert_close(model(**x[0])[0], expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "BertForMaskedLM"])
def test_hugging_face_models_keep_what_repeated_units_say(name: str) -> None:
    model, x = language_model(name).double(), sentences()
    with torch.no_grad():
        for layer in map(model.get_submodule, LAYERS[name]):
            dim = 1 if name.startswith("GPT2") else 0
            half = len(layer.bias) // 2
            for t, d in ((layer.weight, dim), (layer.bias, 0)):
                t.narrow(d, half, half).copy_(t.narrow(d, 0, half).clone())
    expected = model(**x[0]).logits
    report = convert_(model, x, num_features=0.5, output_aware=True, layers=LAYERS[name])
    assert len(report.layers) == 2
    torch.testing.assert_close(model(**x[0]).logits, expected, rtol=1e-4, atol=1e-4)
