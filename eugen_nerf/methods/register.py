"""What nerfstudio finds through the entry points: specifications, nothing else. Imports no optional dependency."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from eugen_nerf.core.errors import EugenError
from eugen_nerf.data.manager import EugenDataManagerConfig
from eugen_nerf.fields.nerf import NeRFFieldConfig
from eugen_nerf.methods.checkpoints import allow_numpy_scalars
from eugen_nerf.methods.nerf import EugenNerfModelConfig

# every ns-* command imports this module before it loads a checkpoint, and stock runs need it as much as ours
allow_numpy_scalars()


def _report_errors_in_one_line() -> None:
    """Under an ns-* command, prints our own errors without a traceback: nerfstudio has no handler for bad input."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, EugenError):
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    sys.excepthook = hook


if Path(sys.argv[0]).name.startswith("ns-"):
    _report_errors_in_one_line()


def _trainer(name: str, model: EugenNerfModelConfig, *, steps: int, rays: int, lr: float) -> TrainerConfig:
    return TrainerConfig(
        method_name=name,
        max_num_iterations=steps,
        steps_per_save=2000,
        steps_per_eval_batch=1000,
        steps_per_eval_image=5000,
        steps_per_eval_all_images=1_000_000,
        pipeline=VanillaPipelineConfig(
            datamanager=EugenDataManagerConfig(train_num_rays_per_batch=rays, eval_num_rays_per_batch=rays),
            model=model,
        ),
        optimizers={
            "fields": {
                "optimizer": AdamOptimizerConfig(lr=lr, eps=1e-8),
                "scheduler": ExponentialDecaySchedulerConfig(lr_final=lr / 50, max_steps=steps),
            }
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 12, websocket_host="127.0.0.1"),
        vis="viewer",
    )


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
    ),
    num_coarse_samples=32,
    num_importance_samples=32,
    occupancy="hull",
)

eugen_nerf = MethodSpecification(
    config=_trainer("eugen-nerf", _FULL, steps=200_000, rays=1024, lr=5e-4),
    description="NeRF with EUGen layers, or its dense twin by --pipeline.model.variant dense.",
)
eugen_nerf_paper = MethodSpecification(
    config=_trainer("eugen-nerf-paper", _PAPER, steps=200_000, rays=1024, lr=5e-4),
    description="NeRF with the EUGen paper's choice: three layers of 256 features.",
)
eugen_nerf_small = MethodSpecification(
    config=_trainer("eugen-nerf-small", _SMALL, steps=3000, rays=512, lr=5e-3),
    description="eugen-nerf small enough to train on a CPU; carves empty space from the images' alpha first.",
)
