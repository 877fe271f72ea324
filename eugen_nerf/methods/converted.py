"""Stock nerfstudio methods with some linear layers of other sizes: what a converted run's config.yml names.

The sizes are plain data. The layers are rebuilt before optimizers are made and before the checkpoint is loaded, so that
every ns-* command finds a model that fits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from torch import nn

from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.runs.checkpoints import architecture_mismatch


@dataclass
class ConvertedPipelineConfig(VanillaPipelineConfig):
    """nerfstudio's pipeline around a model whose layers were replaced."""

    _target: type = field(default_factory=lambda: ConvertedPipeline)
    linears: dict[str, list[int]] = field(default_factory=dict)
    """Sizes of the linear layers that are not as the model's own settings have them, by the full name inside the model:
    inputs, outputs, and 1 where there is a bias, else 0."""


class ConvertedPipeline(VanillaPipeline):
    """nerfstudio's pipeline, which rebuilds the layers that its configuration names.

    Raises:
        RunError: the model has no linear layer of such a name.
    """

    config: ConvertedPipelineConfig

    def __init__(self, config: ConvertedPipelineConfig, *args: Any, **kwargs: Any) -> None:
        original = config.model
        # while nerfstudio builds the model: before it goes to its device and is wrapped for several GPUs
        config.model = _Resized(original, config.linears)  # type: ignore[assignment]
        try:
            super().__init__(config, *args, **kwargs)
        finally:
            config.model = original

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool | None = None) -> None:  # type: ignore[override]
        """As nerfstudio's, but what does not fit is an error, LPIPS networks apart (a metric's, not the model's).

        Raises:
            RunError: names or shapes of the model's tensors differ.
        """
        # trained on several GPUs, a checkpoint names the model's wrapper as well
        wrapped = all(k.startswith("_model.module.") for k in state_dict if k.startswith("_model."))
        prefix = "_model.module." if wrapped else "_model."
        own = {prefix + k: v for k, v in self.model.state_dict().items() if "lpips." in k}
        kept = {k: v for k, v in state_dict.items() if "lpips." not in k}
        try:
            super().load_state_dict({**kept, **own}, strict=True)
        except RuntimeError as error:
            model_state = {k.removeprefix(prefix): v for k, v in {**kept, **own}.items() if k.startswith(prefix)}
            raise architecture_mismatch(self.model, model_state) from error


class _Resized:
    """Replaces a model's configuration while the pipeline builds the model from it."""

    def __init__(self, config: ModelConfig, linears: Mapping[str, list[int]]) -> None:
        self.config, self.linears = config, linears

    def setup(self, **kwargs: Any) -> Model:
        model = self.config.setup(**kwargs)
        resize(model, self.linears)
        return model


def resize(model: nn.Module, linears: Mapping[str, list[int]]) -> None:
    """Replaces linear layers of a model, in place, by freshly initialised ones of other sizes.

    Args:
        model: any.
        linears: inputs, outputs and whether there is a bias (1 or 0), by full module name.

    Raises:
        RunError: no linear layer has one of the names.
    """
    every = dict(model.named_modules(remove_duplicate=False))
    for name, (inputs, outputs, bias) in linears.items():
        old = every.get(name)
        if not isinstance(old, nn.Linear):
            raise RunError(
                f"the configuration gives the sizes of a linear layer {name!r}, which {type(model).__name__} has not: "
                "its settings are not those that the run was converted with"
            )
        with torch.random.fork_rng(devices=[]):  # the checkpoint's weights come next
            new = nn.Linear(inputs, outputs, bias=bool(bias), dtype=old.weight.dtype).to(old.weight.device)
        for full_name, module in every.items():
            if module is old:  # several modules may hold one layer
                path, _, attribute = full_name.rpartition(".")
                setattr(model.get_submodule(path), attribute, new)
