"""Event files as nerfstudio writes them."""

from pathlib import Path

from eugen_nerf.evaluation.reports.training_curves import TAG

# nerfstudio's writer and its configs import each other: only this order works
from nerfstudio.configs import base_config  # noqa: F401  # isort: skip
from nerfstudio.utils.writer import TensorboardWriter  # isort: skip


def write_events(folder: Path, points: dict[int, float], *, group: str = TAG.removesuffix("/psnr")) -> None:
    """One event file with PSNR by step, among other values."""
    events = TensorboardWriter(log_dir=folder)
    for step, value in points.items():
        events.write_scalar_dict(group, {"psnr": value, "ssim": 0.5}, step)
        events.write_scalar("Train Loss", 1.0, step)
    events.tb_writer.close()
