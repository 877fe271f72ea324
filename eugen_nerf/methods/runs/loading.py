"""Loading a finished nerfstudio run, ours or stock, wherever its folder lies now.

``ns-eval`` and its sisters derive the checkpoint folder from the paths stored at training time, so a run that was moved
is lost to them; they build LPIPS networks, which needs a download; and they load strictly, LPIPS tensors included. Here
the checkpoint is looked for beside ``config.yml``, LPIPS is left out, and every other difference is an error.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.field_components.temporal_distortions import TemporalDistortion
from nerfstudio.models.base_model import Model
from nerfstudio.pipelines.base_pipeline import Pipeline
from torch import nn
from torchmetrics import Metric
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from eugen_nerf.core.errors import EugenError, RunError
from eugen_nerf.fields.deformation import DeformedField, times_of
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.checkpoints import first_line, load_weights, read_latest_checkpoint
from eugen_nerf.methods.runs.config_loader import RefusedConfigError, load_config
from eugen_nerf.methods.runs.run_paths import check_config_paths
from eugen_nerf.methods.runs.strict_yaml import ERRORS, problem_of, yaml_text
from eugen_nerf.methods.runs.training_data import check_training_data


@dataclass
class Run:
    """A loaded run.

    Attributes:
        config: the run's configuration as stored (with ``data`` replaced where given); the pipeline owns a copy of its
            part, so this one can be used again.
        pipeline: the pipeline in evaluation mode with the checkpoint's weights.
        checkpoint: the file the weights came from.
        step: the training step of that file.
        path: the run's ``config.yml``.
        stock: the model of a stock method, while a copy that renders faster has its place in the pipeline.
    """

    config: TrainerConfig
    pipeline: Pipeline
    checkpoint: Path
    step: int
    path: Path
    stock: Model | None = None

    @property
    def model(self) -> Model:
        """The nerfstudio model inside the pipeline."""
        return self.pipeline.model

    @property
    def trained_model(self) -> Model:
        """The model that the configuration describes: `model`, but where a copy has its place."""
        return self.model if self.stock is None else self.stock


def load_run(
    config_path: Path,
    *,
    device: str | torch.device | None = None,
    test_mode: Literal["test", "val", "inference"] = "test",
    data: Path | None = None,
    trust_config: bool = False,
) -> Run:
    """Load the latest checkpoint of a nerfstudio run.

    Args:
        config_path: the ``config.yml`` of the run; checkpoints are looked for beside it, in ``nerfstudio_models/``.
        device: where the pipeline goes; None takes CUDA where there is a GPU, else the CPU.
        test_mode: nerfstudio's: "test" and "val" load the training images and that split, "inference" no images.
        data: use this data set instead of the one named in the config.
        trust_config: as in `read_config`.

    Raises:
        RunError: no config, not a config, one that names code of others, no or broken checkpoint, data gone or of
            another scene, or a checkpoint of another architecture.
    """
    config_path = Path(config_path)
    config = read_config(config_path, trust=trust_config)
    if data is not None:
        _set_data(config, Path(data))
    _check_data(config, config_path)
    checkpoint, state = read_latest_checkpoint(checkpoint_dir(config_path, config.relative_model_dir))
    device = usable_device(device)
    # A copy: stock models change their config while they are built (D-NeRF pops a key) and could not be built twice.
    pipeline_config = copy.deepcopy(config.pipeline)
    try:
        with without_lpips():
            pipeline = pipeline_config.setup(device=device, test_mode=test_mode)
    except EugenError:
        raise
    except (Exception, SystemExit) as error:  # what nerfstudio's parsers and other people's models may raise
        raise RunError(
            f"{config_path}: cannot set up the run with the data at {_data_path(config)}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    check_training_data(pipeline, config_path.parent)
    load_weights(pipeline, state["pipeline"], state["step"], checkpoint, check_data_state=test_mode != "inference")
    pipeline.eval()
    return Run(config=config, pipeline=pipeline, checkpoint=checkpoint, step=state["step"], path=config_path)


def usable_device(device: str | torch.device | None) -> torch.device:
    """A device by its name; for None CUDA where there is a GPU, else the CPU.

    Raises:
        RunError: it cannot be used here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        usable = torch.device(device)
        torch.empty(1, device=usable)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"device {str(device)!r} cannot be used here: {first_line(error)}; try --device cpu") from error
    return usable


def fine_field(model: Model) -> nn.Module:
    """The field that makes the final colours: ``field_fine`` where the model has two fields, else ``field``.

    Raises:
        RunError: the model has neither.
    """
    for name in ("field_fine", "field"):
        field = getattr(model, name, None)
        if isinstance(field, nn.Module):
            return field
    raise RunError(
        f"{type(model).__name__} has no field: only models with a `field` or a `field_fine` can be used here"
    )


def query_module(model: Model) -> nn.Module:
    """The module of one query, from ray samples to density and colour: a model's field, behind its deformation if any.

    Raises:
        RunError: the model has no field.
    """
    if isinstance(model, GraphModel):
        return model.query_module()
    distortion = getattr(model, "temporal_distortion", None)
    if isinstance(distortion, TemporalDistortion):
        return DeformedField(_StockDeformation(distortion), fine_field(model))
    return fine_field(model)


class _StockDeformation(nn.Module):
    """nerfstudio's distortion, called as `DeformationField` is."""

    def __init__(self, distortion: TemporalDistortion) -> None:
        super().__init__()
        self.distortion = distortion

    def forward(self, ray_samples: RaySamples) -> torch.Tensor:
        return self.distortion(ray_samples.frustums.get_positions(), times_of(ray_samples))


def checkpoint_dir(config_path: Path, relative: Path = Path("nerfstudio_models")) -> Path:
    """The folder of checkpoints that belongs to a ``config.yml``: the one beside it, whether it exists or not."""
    return Path(config_path).parent / relative


def read_config(config_path: Path, *, trust: bool = False) -> TrainerConfig:
    """Read a ``config.yml``; every call returns a configuration of its own.

    No code that the file names is run: it may hold configurations of nerfstudio and of this package (`load_config`).

    Args:
        config_path: the file.
        trust: read it with ``yaml.Loader`` as nerfstudio itself does, which **runs whatever code the file names**: for
            runs of other plugins whose origin you know.

    Raises:
        RunError: no such file, not YAML, an object that does not belong to a configuration or that this installation
            lacks, a value of a wrong type, or not a training configuration.
    """
    check_config_paths([config_path])
    try:
        text = yaml_text(config_path)
        config = yaml.load(text, Loader=yaml.Loader) if trust else load_config(text)
    except RefusedConfigError as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{config_path} is refused: {reason}; copy it again if it was cut off, or give --trust-config if you know "
            "and trust who made this run"
        ) from error
    except (*ERRORS, RecursionError, ImportError) as error:
        raise RunError(f"{config_path} is not a configuration that can be read: {problem_of(error)}") from error
    if not isinstance(config, TrainerConfig):
        raise RunError(f"{config_path} holds a {type(config).__name__}, not a nerfstudio TrainerConfig")
    # As nerfstudio does: the class of a generic data manager does not survive YAML. Only this copy is changed.
    from nerfstudio.configs.method_configs import all_methods  # here: it imports every plugin, this package included

    registered = all_methods.get(str(config.method_name))
    if isinstance(registered, TrainerConfig):
        config.pipeline.datamanager._target = registered.pipeline.datamanager._target
    return config


@contextmanager
def without_lpips() -> Iterator[None]:
    """Within it, torchmetrics' LPIPS is built without its network: no weights are looked for, nothing is downloaded.

    Stock models build LPIPS in ``populate_modules`` only for their own metrics, which are not used here. The
    constructor is replaced, not the class, so that it does not matter when a model imported it.
    """
    original = LearnedPerceptualImagePatchSimilarity.__init__

    def build_without_network(self: Any, *_: Any, **__: Any) -> None:
        Metric.__init__(self)
        self.net = _AbsentNetwork()
        self.normalize = True

    LearnedPerceptualImagePatchSimilarity.__init__ = build_without_network  # type: ignore[method-assign]
    try:
        yield
    finally:
        LearnedPerceptualImagePatchSimilarity.__init__ = original  # type: ignore[method-assign]


class _AbsentNetwork(nn.Module):
    """Replaces the LPIPS network."""

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        raise RunError("a loaded run carries no LPIPS network: score its images with eugen-eval")


def _data_path(config: TrainerConfig) -> Path | None:
    """Where the run's data manager will look for images; its own ``data`` wins over the dataparser's."""
    manager = config.pipeline.datamanager
    path = manager.data or getattr(getattr(manager, "dataparser", None), "data", None)
    return None if path is None else Path(path)


def _set_data(config: TrainerConfig, data: Path) -> None:
    """Point every setting that names the data at ``data``."""
    manager = config.pipeline.datamanager
    config.data = manager.data = data
    if hasattr(manager, "dataparser"):
        manager.dataparser.data = data


def _check_data(config: TrainerConfig, config_path: Path) -> None:
    path = _data_path(config)
    if path is None or path.exists():
        return
    where = "" if path.is_absolute() else f" (a relative path, looked for from {Path.cwd()})"
    raise RunError(f"{config_path}: the data set {path}{where} does not exist; give its path with --data")
