"""eugen-render: a run along time, the camera still or moving."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from eugen_nerf.cli.support.common import run_cli
from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import COUNT_OR_NONE, FINITE, QUALITY, QUALITY_RANGE, Range
from eugen_nerf.evaluation.output_paths import CameraPath, check_film_output
from eugen_nerf.methods.runs.run_paths import check_bundle_paths, check_config_paths, check_data_path

if TYPE_CHECKING:
    from eugen_nerf.methods.runs.loading import Run


@dataclass
class RenderCommand:
    """Render a run or a bundle along time, from a fixed or a moving camera; `ns-render interpolate` drops the time.

    Works for runs of dynamic scenes, ours or stock dnerf's, and with a moving camera for any run.
    """

    GROUPS: ClassVar = {
        "camera": ("view", "path"),
        "time": ("frames", "times", "fps"),
        "renderer": ("exact", "quality"),
        "machine": ("device", "data", "trust_config"),
    }

    output: Path
    """NAME.mp4, NAME.gif, NAME.png (frames side by side), or a folder to make."""
    bundle: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[BUNDLE]")] = None
    """Folder of a bundle, in place of a run."""
    load_config: Path | None = None
    """config.yml of the run."""
    view: Annotated[int, COUNT_OR_NONE] = 0
    """Test view whose camera is taken."""
    path: CameraPath = "fixed"
    """fixed; orbit: one turn about the vertical through the scene's middle; spiral: a small circle across the line of
    sight."""
    frames: Annotated[int | None, Range(1, 100_000)] = None
    """Number of frames (default: 60, and 8 of a strip)."""
    times: Annotated[tuple[float, float], FINITE] = (0.0, 1.0)
    """Times of the first and the last frame; the others are evenly spaced."""
    fps: Annotated[float, Range(0.01, 1000)] = 24.0
    """Frames per second."""
    overwrite: bool = False
    """Replace a file that is there."""
    exact: bool = False
    """Render by the samplers of training, as evaluation does, and not by the fast renderer."""
    quality: Annotated[float, QUALITY_RANGE] = QUALITY
    """dB of PSNR, on training photographs, that the fast renderer may lose."""
    device: str | None = None
    """Where to render, such as cpu or cuda, or wgpu for any GPU by WebGPU; a GPU where there is one by default."""
    data: Path | None = None
    """Data set, where it no longer lies where the run was trained."""
    trust_config: bool = False
    """Read config.yml as nerfstudio does, which runs code that it names: for other plugins' runs that you trust."""

    def run(self) -> None:
        """Renders and writes."""
        if (self.load_config is None) == (self.bundle is None):
            raise ConfigError("there is one thing to render: give --load-config RUN/config.yml, or a bundle's folder")
        check_config_paths([] if self.load_config is None else [self.load_config])
        check_bundle_paths([] if self.bundle is None else [self.bundle], exact=self.exact)
        check_data_path(self.data)
        check_film_output(self.output, overwrite=self.overwrite)
        frames = self.frames if self.frames is not None else (8 if self.output.suffix.lower() == ".png" else 60)
        from eugen_nerf.conversion.gpu_rendering import render_by_gpu
        from eugen_nerf.evaluation.images.film import film_cameras, has_times, render_film, scene_centre, write_film
        from eugen_nerf.evaluation.images.view_rendering import eval_dataset
        from eugen_nerf.methods.runs.bundle_runs import bundle_line
        from eugen_nerf.methods.runs.fast_rendering import use_fast_renderer
        from eugen_nerf.web.native.adapters import WGPU, adapter_for

        gpu = adapter_for(self.device, exact=self.exact)
        run = self._opened(self.device if gpu is None else "cpu")
        timed = has_times(run)
        if not timed and self.path == "fixed":
            raise ConfigError(
                f"{run.path} is of a scene without times, so a fixed camera renders one image: "
                "take --path orbit or spiral"
            )
        count = len(eval_dataset(run))
        if not 0 <= self.view < count:
            raise ConfigError(f"no view {self.view} to take the camera of: the split has views 0 to {count - 1}")
        line = None
        if gpu is not None:
            line = render_by_gpu(run, gpu, wanted=self.device == WGPU, quality=self.quality, progress=print)
        if line is not None:
            print(line)
        elif self.bundle is not None:
            print(bundle_line(run))
        elif not self.exact:
            choice = use_fast_renderer(run, quality=self.quality, progress=print)
            if choice is not None:
                print(choice)
        camera = eval_dataset(run).cameras[self.view : self.view + 1]
        cameras = film_cameras(camera, scene_centre(run), self.path, frames, self.times if timed else None)
        write_film(render_film(run, cameras), self.output, fps=self.fps)
        print(f"wrote {self.output}: {frames} frames")

    def _opened(self, device: str | None) -> Run:
        """The run, or the bundle as one."""
        from eugen_nerf.methods.runs.bundle_runs import open_bundle
        from eugen_nerf.methods.runs.loading import load_run

        if self.load_config is None:
            assert self.bundle is not None
            return open_bundle(self.bundle, device=device)
        return load_run(self.load_config, device=device, data=self.data, trust_config=self.trust_config)


def main() -> None:
    """Entry point of eugen-render."""
    run_cli(lambda: parse(RenderCommand, "eugen-render").run())


if __name__ == "__main__":
    main()
