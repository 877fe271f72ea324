"""Changes of a data set's document and files, and the data managers that read the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eugen_nerf.core.errors import DataError


def manager_of(root: Path, parser: str = "nerfstudio-data", test_mode: str = "val", **options: Any):
    from nerfstudio.configs.dataparser_configs import all_dataparsers

    from eugen_nerf.data.manager import EugenDataManagerConfig

    settings = type(all_dataparsers[parser])(data=root, **options)
    config = EugenDataManagerConfig(dataparser=settings, train_num_rays_per_batch=256, eval_num_rays_per_batch=64)
    return config.setup(device="cpu", test_mode=test_mode)


def refusal(root: Path, parser: str = "nerfstudio-data", **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        manager_of(root, parser, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def drop(*names: str) -> Callable[[dict, Path], None]:
    def edit(document: dict, root: Path) -> None:
        for name in names:
            document.pop(name)

    return edit


def each(change: Callable[[dict, int], Any]) -> Callable[[dict, Path], None]:
    def edit(document: dict, root: Path) -> None:
        for index, frame in enumerate(document["frames"]):
            change(frame, index)

    return edit


def both(*edits: Callable[[dict, Path], Any]) -> Callable[[dict, Path], None]:
    def edit(document: dict, root: Path) -> None:
        for one in edits:
            one(document, root)

    return edit


def photographs(change: Callable[[Image.Image], Image.Image], only: int | None = None) -> Callable[[dict, Path], None]:
    def edit(document: dict, root: Path) -> None:
        for i, frame in enumerate(document["frames"]):
            if only in (None, i):
                path = root / frame["file_path"]
                change(Image.open(path)).save(path)

    return edit


def masks(make: Callable[[int], Image.Image | bytes | None]) -> Callable[[dict, Path], None]:
    def edit(document: dict, root: Path) -> None:
        for i, frame in enumerate(document["frames"]):
            mask = make(i)
            if isinstance(mask, bytes):
                (root / f"m{i}.png").write_bytes(mask)
            elif mask is not None:
                mask.save(root / f"m{i}.png")
            if mask is not None:
                frame["mask_path"] = f"m{i}.png"

    return edit
