"""eugen-view: opens trained runs in a browser, side by side."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from eugen_nerf.cli.support.common import print_lines, run_cli
from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.checks.names import NAME
from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import QUALITY, QUALITY_RANGE, Range
from eugen_nerf.methods.runs.run_paths import (
    check_bundle_paths,
    check_config_paths,
    check_data_path,
    check_names,
    is_bundle,
    run_names,
)


@dataclass
class ViewCommand:
    """Opens one or more trained runs in a browser: side by side, compressed live, over time, as surfaces.

    To open a run: eugen-view --load-config outputs/EXPERIMENT/METHOD/TIMESTAMP/config.yml

    To compare two: eugen-view --load-config DENSE/config.yml EUGEN/config.yml --names dense eugen

    To open a bundle, whose data set need not be there: eugen-view BUNDLE

    It prints the address to open, and an ssh command for a browser on another machine. Ctrl-C ends it. All panels are
    described in docs/guides/viewer.md.
    """

    GROUPS: ClassVar = {
        "server": ("host", "port"),
        "renderer": ("exact", "quality"),
        "machine": ("device", "data", "trust_config", "max_size", "timing"),
    }

    bundles: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of bundles, shown after the runs."""
    load_config: tuple[Path, ...] = ()
    """Paths of config.yml, one per run: runs of this package or of nerfstudio. The first run defines test views and
    coordinates."""
    names: Annotated[tuple[str, ...], NAME] = ()
    """Names of the runs in the viewer, one each (default: the parts of their paths that differ)."""
    host: str = "127.0.0.1"
    """Address to listen at. 127.0.0.1 accepts only this machine; 0.0.0.0 accepts everyone who can reach it."""
    port: Annotated[int | None, Range(1, 65535)] = None
    """Port to listen at (default: 7007, or the next free one)."""
    output: Path = Path("outputs/view")
    """Folder for screenshots, films and meshes."""
    max_size: Annotated[int, Range(16, 8192)] = 512
    """Pixels along the longer side of an image at full resolution; a slider in the viewer changes it."""
    save_page: Path | None = None
    """Write a web page of one run, or of two side by side, to this .html file (see `eugen-web`), and exit."""
    overwrite: bool = False
    """With --save-page: replace a page that is there."""
    timing: bool = False
    """Measure start, frames and refits without a browser, print the times, and exit."""
    exact: bool = False
    """Render by the samplers of training, as evaluation does, and not by the fast renderer."""
    quality: Annotated[float, QUALITY_RANGE] = QUALITY
    """dB of PSNR, on training photographs, that the fast renderer may lose."""
    device: str | None = None
    """Device for rendering, such as cpu or cuda, or wgpu for any GPU by WebGPU (default: a GPU if there is one)."""
    data: Path | None = None
    """Directory of the runs' data set, if it was moved since training."""
    trust_config: bool = False
    """Read config.yml as nerfstudio does, which runs code that it names: for other plugins' runs that you trust."""

    def run(self) -> None:
        """Loads, prints the address, and serves until Ctrl-C."""
        import time

        start = time.perf_counter()
        paths = [*self.load_config, *self.bundles]
        if not paths:
            raise ConfigError("no run to open: give --load-config RUN/config.yml, or the folder of a bundle")
        check_names(self.names, len(paths))
        check_config_paths(self.load_config)
        check_bundle_paths(self.bundles, exact=self.exact)
        check_data_path(self.data)
        check_place(self.output, "folder")
        if self.overwrite and self.save_page is None:
            raise ConfigError("--overwrite replaces a page: give --save-page too, or leave it out")
        if self.save_page is not None:
            self._save_page(self.save_page, paths)
            return
        # warnings of other packages about their own code would scroll the address away
        warnings.filterwarnings("ignore", module=r"(torch|nerfstudio|splines)\b")
        from rich.console import Console

        from eugen_nerf.cli.support.progress import working
        from eugen_nerf.methods.runs.bundle_runs import bundle_line
        from eugen_nerf.web.native.adapters import WGPU, adapter_for
        from eugen_viewer.server.access import Access
        from eugen_viewer.server.address import address_lines, choose_port
        from eugen_viewer.shown_runs import open_run

        console = Console()
        gpu = adapter_for(self.device, exact=self.exact)
        on = self.device if gpu is None else "cpu"
        port, note = choose_port(self.host, self.port)
        names = run_names(paths, self.names)
        runs = []
        for path, name in zip(paths, names, strict=True):
            with working(console, f"loading {name}"):
                run = open_run(path, name, device=on, data=self.data, trust_config=self.trust_config)
                runs.append(run)
            line = None
            if gpu is not None:
                with working(console, f"preparing {name} for {gpu.name}"):
                    line = run.render_on(gpu, wanted=self.device == WGPU, quality=self.quality, progress=print)
            if line is not None:
                print_lines(console, {name: line})
            elif is_bundle(path):
                print_lines(console, {name: bundle_line(run.run)})
            elif not self.exact:
                with working(console, f"preparing fast rendering of {name}"):
                    choice = run.render_fast(self.quality)
                if choice is not None:
                    print_lines(console, {name: str(choice)})
        if self.timing:
            from eugen_viewer.timing.self_timing import print_timing

            print_timing(runs, console, max_size=self.max_size, started=start)
            return
        from eugen_viewer.app import Viewer

        access = Access.to(self.host)
        viewer = Viewer(runs, host=self.host, port=port, output=self.output, max_size=self.max_size, access=access)
        print_lines(console, {**address_lines(self.host, port, note, token=access.token), "stop": "Ctrl-C"})
        try:
            viewer.wait()
        finally:
            viewer.close()

    def _save_page(self, place: Path, paths: list[Path]) -> None:
        """The page that `eugen-web` writes of the same runs; raises as it does."""
        if self.exact or self.timing:
            raise ConfigError("--save-page writes a page and exits: leave out --exact and --timing")
        from eugen_nerf.cli.web import WebCommand
        from eugen_nerf.web.page_files import check_page_path

        check_page_path(place, overwrite=self.overwrite, option="--save-page")
        from eugen_nerf.web.native.adapters import WGPU  # loads torch

        WebCommand(
            output=place,
            inputs=tuple(paths),
            names=self.names,
            overwrite=self.overwrite,
            quality=self.quality,
            device=None if self.device == WGPU else self.device,
            data=self.data,
            trust_config=self.trust_config,
        ).run()


def main() -> None:
    """Entry point of eugen-view."""
    run_cli(lambda: parse(ViewCommand, "eugen-view").run())


if __name__ == "__main__":
    main()
