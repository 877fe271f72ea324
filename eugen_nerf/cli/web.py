"""eugen-web: trained fields as a web page that a browser's own GPU renders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from eugen_nerf.cli.support.common import print_lines, run_cli
from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.ranges import QUALITY, QUALITY_RANGE
from eugen_nerf.methods.runs.run_paths import (
    check_bundle_paths,
    check_config_paths,
    check_data_path,
    check_names,
    run_names,
)
from eugen_nerf.web.page import MOST_FIELDS
from eugen_nerf.web.page_files import check_page_path

if TYPE_CHECKING:
    from eugen_nerf.core.bundles.bundled_field import BundledField
    from eugen_nerf.web.scene_data import SceneData


@dataclass
class WebCommand:
    """Writes one or two trained fields as a web page that any browser's own GPU renders, without a server.

    To send a scene: eugen-web outputs/EXPERIMENT/METHOD/TIMESTAMP/config.yml --output scene.html

    To show two with a split between them: eugen-web DENSE/config.yml EUGEN/config.yml --output both.html

    The page is one file that requests nothing. Browsers need WebGPU; docs/guides/web_page.md says which have it.
    """

    GROUPS: ClassVar = {
        "page": ("names", "title", "folder", "overwrite"),
        "machine": ("quality", "device", "data", "trust_config"),
    }

    output: Path
    """NAME.html to write, or with --folder a folder."""
    inputs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """One or two: folders of bundles, or a run's config.yml or its folder."""
    names: tuple[str, ...] = ()
    """What the page calls them, one each (default: the parts of their paths that differ)."""
    title: str | None = None
    """Title of the page (default: the names)."""
    folder: bool = False
    """Write a folder with the page and its weights beside it, for fields too large to stand in a page; browsers read
    such a folder from a web server alone."""
    overwrite: bool = False
    """Replace a page that is there."""
    quality: Annotated[float, QUALITY_RANGE] = QUALITY
    """dB of PSNR, on training photographs, that the renderer of a run may lose."""
    device: str | None = None
    """Where runs are measured, such as cpu or cuda; a GPU where there is one by default."""
    data: Path | None = None
    """Data set of the runs, where it no longer lies where they were trained."""
    trust_config: bool = False
    """Read config.yml as nerfstudio does, which runs code that it names: for other plugins' runs that you trust."""

    def run(self) -> None:
        """Bundles, packs and writes; prints what is in the page."""
        paths = self._checked_paths()
        check_page_path(self.output, folder=self.folder, overwrite=self.overwrite)
        from rich.console import Console

        from eugen_nerf.cli.support.progress import working
        from eugen_nerf.conversion.page_export import field_at, page_of
        from eugen_nerf.web.page_files import write_page

        console = Console()
        names = run_names(paths, self.names)
        fields = []
        for path, name in zip(paths, names, strict=True):
            with working(console, f"preparing {name}"):
                field = field_at(
                    path,
                    quality=self.quality,
                    device=self.device,
                    data=self.data,
                    trust_config=self.trust_config,
                    progress=lambda line: console.print(line, markup=False, highlight=False),
                )
            fields.append((name, field))
        with working(console, "making the page"):
            page, packed = page_of(fields, self.title or " and ".join(names), inline=not self.folder)
        size = write_page(page, self.output, overwrite=self.overwrite)
        for (name, field), data in zip(fields, packed, strict=True):
            print_lines(console, {name: field_line(field, data)})
        opened = f"python -m http.server --directory {self.output}" if self.folder else self.output
        print_lines(console, {"page written": f"{self.output}, {size / 1e6:.1f} MB", "open it": opened})

    def _checked_paths(self) -> list[Path]:
        """The bundles' folders and runs' config files.

        Raises:
            ConfigError: none, too many, or names that do not fit.
            RunError: one that is neither.
        """
        if not 0 < len(self.inputs) <= MOST_FIELDS:
            raise ConfigError(f"a page shows one field or two, not {len(self.inputs)}: give one or two bundles or runs")
        check_names(self.names, len(self.inputs), kind="fields")
        check_data_path(self.data)
        return [_field_path(path) for path in self.inputs]


def _field_path(path: Path) -> Path:
    """The folder of a bundle, or the config of a run that was given by it or by its folder; raises `RunError`."""
    if (path / "bundle.json").is_file():
        check_bundle_paths([path], exact=False)
        return path
    config = path / "config.yml" if path.is_dir() else path
    if path.is_dir() and not config.is_file():
        raise RunError(f"{path} holds neither bundle.json nor config.yml: give the folder of a bundle or of a run")
    check_config_paths([config])
    return config


def field_line(field: BundledField, data: SceneData) -> str:
    """What there is to say of a field on a page."""
    quality = field.scene.quality if field.scene is not None else None
    bits = "float16" if data.half else "float32"
    rounded = "" if data.lost is None else f", which loses {max(0.0, data.lost):.2f} dB"
    measured = "" if quality is None else f"; its renderer {quality}"
    return f"{field.multiply_adds():,} multiply-adds a query, {bits}{rounded}{measured}"


def main() -> None:
    """Entry point of eugen-web."""
    run_cli(lambda: parse(WebCommand, "eugen-web").run())


if __name__ == "__main__":
    main()
