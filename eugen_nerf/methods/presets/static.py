"""Method specifications that the entry points register with nerfstudio. Imports no optional dependency."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.configs.external_methods import ExternalMethodDummyTrainerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification
from torch.multiprocessing import ProcessRaisedException

from eugen_nerf.core.errors import EugenError
from eugen_nerf.data.manager import EugenDataManagerConfig
from eugen_nerf.fields.nerf import NeRFFieldConfig
from eugen_nerf.methods.graph_model import GraphModelConfig
from eugen_nerf.methods.mipnerf360 import MipNeRF360ModelConfig
from eugen_nerf.methods.nerf import EugenNerfModelConfig
from eugen_nerf.methods.optimizers import Algorithm, FieldOptimizerConfig
from eugen_nerf.methods.runs.checkpoints import allow_numpy_scalars
from eugen_nerf.methods.trainer import EugenTrainerConfig
from eugen_nerf.methods.unbounded_model import UnboundedModelConfig
from eugen_nerf.methods.zipnerf import ZipNeRFModelConfig

# every ns-* command imports this module before it loads a checkpoint, and stock runs need it as much as ours
allow_numpy_scalars()


def _list_methods_without_sources() -> None:
    """nerfstudio lists methods that are not installed, and asks for the whole stack with all of its sources to know
    each from one that was chosen: a third of the processor time in which every command that needs nerfstudio starts.
    """
    offer_to_install = ExternalMethodDummyTrainerConfig.__post_init__

    def offer_if_chosen(self: ExternalMethodDummyTrainerConfig) -> None:
        caller = sys._getframe(2)  # of `__init__`, which calls this
        if caller.f_code.co_name != "get_external_methods":
            offer_to_install(self)

    ExternalMethodDummyTrainerConfig.__post_init__ = offer_if_chosen  # type: ignore[method-assign]


# plugins are loaded before that list is made
_list_methods_without_sources()


def _report_errors_in_one_line() -> None:
    """Under an ns-* command, prints our own errors without a traceback: nerfstudio has no handler for bad input."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = _in_one_line(error)
        if text is None:
            previous(kind, error, trace)
        else:
            print(f"error: {' '.join(text.split())}", file=sys.stderr)

    sys.excepthook = hook


def _in_one_line(error: BaseException) -> str | None:
    """The line printed in place of a traceback; None for errors that need one."""
    if isinstance(error, EugenError):
        return str(error)
    if isinstance(error, ProcessRaisedException):  # of one process of several: it brings a traceback alone
        kind, _, message = str(error).strip().splitlines()[-1].partition(": ")
        if kind.startswith(EugenError.__module__):
            return message
        if message.startswith("cuda is not available"):
            return (
                "nerfstudio trains in several processes on NVIDIA GPUs alone, and none is found here: leave out "
                "--machine.num-devices and --machine.num-machines"
            )
    return None


if Path(sys.argv[0]).name.startswith("ns-"):
    _report_errors_in_one_line()


def method_trainer(
    name: str,
    model: GraphModelConfig,
    *,
    steps: int,
    rays: int,
    lr: float,
    algorithm: Algorithm = "adam",
    dataparser: DataParserConfig,
    manager: Callable[..., EugenDataManagerConfig] = EugenDataManagerConfig,
) -> EugenTrainerConfig:
    """Parts that all methods here share; one parameter group, `fields`."""
    return EugenTrainerConfig(
        method_name=name,
        max_num_iterations=steps,
        steps_per_save=2000,
        steps_per_eval_batch=1000,
        steps_per_eval_image=5000,
        steps_per_eval_all_images=1_000_000,
        pipeline=VanillaPipelineConfig(
            datamanager=manager(dataparser=dataparser, train_num_rays_per_batch=rays, eval_num_rays_per_batch=rays),
            model=model,
        ),
        optimizers={
            "fields": {
                "optimizer": FieldOptimizerConfig(lr=lr, eps=1e-8, algorithm=algorithm),
                "scheduler": ExponentialDecaySchedulerConfig(lr_final=lr / 50, max_steps=steps),
            }
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 12, websocket_host="127.0.0.1"),
        vis="viewer",
    )


def _unbounded_trainer(
    name: str,
    model: UnboundedModelConfig,
    *,
    steps: int,
    rays: int,
    lr: tuple[float, float],
    warmup: int,
    clip: bool = False,
    algorithm: Algorithm = "adam",
    adam_ratio: float = 0.25,
) -> EugenTrainerConfig:
    """Real captures in nerfstudio's format; one schedule for the field and the proposals."""
    config = method_trainer(name, model, steps=steps, rays=rays, lr=lr[0], dataparser=NerfstudioDataParserConfig())
    config.optimizers = {
        group: {
            "optimizer": FieldOptimizerConfig(
                lr=lr[0], eps=1e-15, max_norm=1e-3 if clip else None, algorithm=algorithm, adam_ratio=adam_ratio
            ),
            "scheduler": ExponentialDecaySchedulerConfig(
                lr_final=lr[1], max_steps=steps, warmup_steps=warmup, lr_pre_warmup=lr[0] / 100
            ),
        }
        for group in ("fields", "proposal_networks")
    }
    return config


_FULL = EugenNerfModelConfig()
_PAPER = EugenNerfModelConfig(
    network=NeRFFieldConfig(layers=("trunk_[567]",), num_features=(256,), norm=True),
)
_SMALL = EugenNerfModelConfig(
    network=NeRFFieldConfig(
        trunk_layers=4,
        trunk_width=128,
        skips=(2,),
        head_layers=1,
        head_width=64,
        position_frequencies=6,
        position_max_exponent=4.0,
        num_features=(96,),
        start="linear",
        train_merged=True,
    ),
    num_coarse_samples=32,
    num_importance_samples=32,
    occupancy="hull",
)

eugen_nerf = MethodSpecification(
    config=method_trainer("eugen-nerf", _FULL, steps=200_000, rays=1024, lr=5e-4, dataparser=BlenderDataParserConfig()),
    description="NeRF with EUGen layers, or its dense twin by --pipeline.model.variant dense.",
)
eugen_nerf_paper = MethodSpecification(
    config=method_trainer(
        "eugen-nerf-paper", _PAPER, steps=200_000, rays=1024, lr=5e-4, dataparser=BlenderDataParserConfig()
    ),
    description="NeRF with the EUGen paper's choice: three layers of 256 features.",
)
eugen_nerf_small = MethodSpecification(
    config=method_trainer(
        "eugen-nerf-small",
        _SMALL,
        steps=3000,
        rays=512,
        lr=2e-2,
        algorithm="muon",
        dataparser=BlenderDataParserConfig(),
    ),
    description="eugen-nerf small enough to train on a CPU; carves empty space from the images' alpha first.",
)

_MIP = MipNeRF360ModelConfig()
_MIP_PAPER = replace(_MIP, network=replace(_MIP.network, layers=("trunk_[567]",), num_features=(1024,), norm=True))
_MIP_SMALL = replace(
    _MIP,
    network=replace(
        _MIP.network,
        trunk_width=256,
        bottleneck_width=128,
        head_width=64,
        position_frequencies=8,
        num_features=(128,),
        train_merged=True,
    ),
    proposal=replace(
        _MIP.proposal, trunk_layers=2, trunk_width=64, position_frequencies=6, num_features=(32,), train_merged=True
    ),
    num_proposal_samples=(32, 32),
    eval_num_rays_per_chunk=512,
)
_ZIP = ZipNeRFModelConfig()
_ZIP_PAPER = replace(_ZIP, network=replace(_ZIP.network, layers=("head_0",), norm=True))
_ZIP_SMALL = replace(
    _ZIP,
    network=replace(_ZIP.network, max_resolution=1024, log2_table_size=18, train_merged=True),
    proposal=replace(_ZIP.proposal, log2_table_size=18),
    proposal_resolutions=(128, 256),
    num_proposal_samples=(32, 32),
    eval_num_rays_per_chunk=512,
)

eugen_mipnerf360 = MethodSpecification(
    config=_unbounded_trainer(
        "eugen-mipnerf360", _MIP, steps=250_000, rays=4096, lr=(2e-3, 2e-5), warmup=512, clip=True
    ),
    description="Mip-NeRF 360 with EUGen layers, or its dense twin by --pipeline.model.variant dense.",
)
eugen_mipnerf360_paper = MethodSpecification(
    config=_unbounded_trainer(
        "eugen-mipnerf360-paper", _MIP_PAPER, steps=250_000, rays=4096, lr=(2e-3, 2e-5), warmup=512, clip=True
    ),
    description="Mip-NeRF 360 with the EUGen paper's choice: three layers of 1024 features.",
)
eugen_mipnerf360_small = MethodSpecification(
    config=_unbounded_trainer(
        "eugen-mipnerf360-small", _MIP_SMALL, steps=2000, rays=512, lr=(1e-2, 5e-4), warmup=100, algorithm="muon"
    ),
    description="eugen-mipnerf360 small enough to train on a CPU.",
)
eugen_zipnerf = MethodSpecification(
    config=_unbounded_trainer("eugen-zipnerf", _ZIP, steps=200_000, rays=8192, lr=(1.25e-3, 1.25e-4), warmup=20_000),
    description="Zip-NeRF with EUGen layers in its head, or its dense twin by --pipeline.model.variant dense.",
)
eugen_zipnerf_paper = MethodSpecification(
    config=_unbounded_trainer(
        "eugen-zipnerf-paper", _ZIP_PAPER, steps=200_000, rays=8192, lr=(1.25e-3, 1.25e-4), warmup=20_000
    ),
    description="Zip-NeRF with the EUGen paper's choice: the head's first layer, 64 features.",
)
eugen_zipnerf_small = MethodSpecification(
    config=_unbounded_trainer(
        "eugen-zipnerf-small",
        _ZIP_SMALL,
        steps=2000,
        rays=512,
        lr=(1e-2, 1e-3),
        warmup=100,
        algorithm="muon",
        adam_ratio=1.0,  # the grids' rate stays what it was
    ),
    description="eugen-zipnerf small enough to train on a CPU.",
)
