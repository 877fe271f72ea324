"""Splits of a data set: training images and held-out ones."""

from __future__ import annotations

import math
from typing import Any

from nerfstudio.data.utils import dataparsers_utils

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.images.posed import SUBSTITUTE_SPLITS, ImageSet


def split_indices(images: ImageSet, config: Any, split: str) -> tuple[list[int], str | None]:
    """The images of a split.

    Arguments:
        images: the data set, which may define its splits.
        config: of the data parser, whose `eval_mode` applies if the data set defines none.
        split: "train", "val" or "test". The last two substitute for each other if the data set defines only one.

    Returns indices, and the name of the substitute (None if the split exists). Raises `DataError` for an empty split.
    """
    substitute = None
    if images.splits is not None:
        name = split
        if split not in images.splits and SUBSTITUTE_SPLITS.get(split) in images.splits:
            name = substitute = SUBSTITUTE_SPLITS[split]
        chosen = images.splits.get(name, [])
    else:
        chosen = _by_mode(images, config, split)
    if not chosen:
        raise DataError(_empty(images, config, split))
    return chosen, substitute


def _by_mode(images: ImageSet, config: Any, split: str) -> list[int]:
    """Splits by a parser's settings, as nerfstudio does."""
    names = [image.path for image in images.images]
    mode = config.eval_mode
    if mode == "fraction":
        train, held_out = dataparsers_utils.get_train_eval_split_fraction(names, config.train_split_fraction)
    elif mode == "interval":
        train, held_out = dataparsers_utils.get_train_eval_split_interval(names, config.eval_interval)
    elif mode == "all":
        train, held_out = dataparsers_utils.get_train_eval_split_all(names)
    else:
        unnamed = [name for name in names if "train" not in name.name and "eval" not in name.name]
        if unnamed:
            raise DataError(
                f"--eval-mode filename splits by 'train' or 'eval' in each file's name, and '{unnamed[0]}' has neither "
                f"({len(unnamed)} of {len(names)} files): rename them, or leave --eval-mode out"
            )
        train, held_out = dataparsers_utils.get_train_eval_split_filename(names)
    return [int(i) for i in (train if split == "train" else held_out)]


def _empty(images: ImageSet, config: Any, split: str) -> str:
    """Error message for a split without images."""
    count = len(images.images)
    start = f"the {split} split of '{images.source}' is empty"
    if images.splits is not None:
        named = ", ".join(f"{name} {len(chosen)}" for name, chosen in images.splits.items())
        return (
            f"{start}: the data set names its splits ({named}), and needs images to train on and others to evaluate "
            "on; complete its lists, or remove all of them"
        )
    if count < 2:
        return f"{start}: {count} image is there, at least 2 are needed, one of them to evaluate on"
    if config.eval_mode == "fraction":
        share = math.floor(100 * (count - 1) / count) / 100
        return (
            f"{start}: a share of {config.train_split_fraction:g} of {count} images leaves none for it; write "
            f"--train-split-fraction {share:g} after the data parser's name (nerfstudio-data)"
        )
    if config.eval_mode == "interval":
        return (
            f"{start}: every {config.eval_interval}th of {count} images is evaluated on, which leaves none for it; "
            "write another --eval-interval after the data parser's name"
        )
    return f"{start}: none of its {count} files is named for it; write another --eval-mode after the data parser's name"
