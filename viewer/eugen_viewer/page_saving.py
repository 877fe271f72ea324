"""What the viewer shows as a web page: one run, or two with a split between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eugen_nerf.conversion.page_export import field_at, page_of
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import QUALITY
from eugen_nerf.web.page_files import write_page
from eugen_viewer.background_jobs import Progress
from eugen_viewer.shown_runs import ShownRun


def save_web_page(runs: Sequence[ShownRun], path: Path, progress: Progress) -> int:
    """Writes a page of one or two runs, which are loaded anew: the shown ones go on rendering meanwhile.

    Args:
        runs: as they are shown.
        path: of the page, which must not exist.
        progress: called before each step.

    Returns:
        Bytes written.

    Raises:
        EugenError: a preview, which is no run yet; a run that no page can show; or the page cannot be written.
    """
    for shown in runs:
        if shown.model is not shown.run.model:
            raise ConfigError(f"{shown.name} is a preview and no run yet: save it as a run first")
    fields = []
    for number, shown in enumerate(runs):
        progress(number / (len(runs) + 1), f"preparing {shown.name}")
        data = getattr(shown.run.pipeline.datamanager, "get_datapath", lambda: None)()
        quality = QUALITY if shown.quality is None else shown.quality
        field = field_at(
            shown.run.path,
            quality=quality,
            device=str(shown.model.device),
            data=data,
            trust_config=shown.trust_config,
        )
        fields.append((shown.name, field))
    progress(len(runs) / (len(runs) + 1), "making the page")
    page, _ = page_of(fields, " and ".join(shown.name for shown in runs))
    return write_page(page, path)
