"""The scored images beside a report, and the check that its scores are theirs, without any run or data set."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.errors import RunError
from eugen_nerf.evaluation.compare import Comparison
from eugen_nerf.evaluation.images.view_rendering import images_hash
from eugen_nerf.methods.runs.image_metrics import Image8, psnr, ssim

FOLDER = "renders"
TRUTH = "truth"
_TOLERANCE = 1e-5
"""Scores of the same 8-bit images differ by less from machine to machine: dB, and SSIM."""


def image_folders(names: Sequence[str], folder: str = FOLDER) -> dict[str, str]:
    """A folder for each variant's images, relative to the report: numbered, of letters that any file system takes."""
    return {
        name: f"{folder}/{number:02d}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:60]}"
        for number, name in enumerate(names)
    }


def write_images(comparison: Comparison, folder: Path) -> Path:
    """Writes every scored image and its photograph as PNG into a new folder beside the report: all of them, or none.

    Returns:
        The folder: `FOLDER`, or with a number where an older report's is there.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    folders = {TRUTH: f"{FOLDER}/{TRUTH}", **image_folders(list(comparison.renders))}
    final, number = folder / FOLDER, 2
    try:
        while final.exists():
            final, number = folder / f"{FOLDER}-{number}", number + 1
        with atomic_path(final) as partial:
            for name, subfolder in folders.items():
                into = partial / Path(subfolder).name
                into.mkdir(parents=True)
                images = comparison.truth if name == TRUTH else comparison.renders[name]
                for view, image in zip(comparison.views, images, strict=True):
                    Image.fromarray(image).save(into / f"{view:04d}.png")
    except OSError as error:
        raise RunError(f"cannot write {final}: {error.strerror}") from error
    return final


def remove_images(folder: Path, *, keep: Sequence[Path] = ()) -> None:
    """Removes the images of older reports; what cannot be removed stays."""
    for path in folder.iterdir():
        if re.fullmatch(rf"{FOLDER}(-\d+)?", path.name) and path not in keep:
            shutil.rmtree(path, ignore_errors=True)


def verify(report: Path) -> list[str]:
    """What in a report does not fit the images beside it; nothing where all does.

    Hashes of predictions and ground truth, and PSNR and SSIM of every view, are computed anew.

    Args:
        report: a `report.json` that `eugen-eval` wrote.

    Raises:
        RunError: no such report, one that holds something else, or one that keeps no images.
    """
    content = _read(report)
    try:
        return _findings(report, content)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, OSError) as error:
        raise RunError(f"{report} is no report.json of eugen-eval: {type(error).__name__}") from error


def _findings(report: Path, content: dict[str, Any]) -> list[str]:
    views, protocol = content["protocol"]["views"], content["protocol"]
    findings: list[str] = []
    of_truth = protocol.get("ground_truth_pictures", f"{FOLDER}/{TRUTH}")  # older reports do not name it
    truth = _images(report.parent, of_truth, views, findings)
    if truth is not None and images_hash(truth) != protocol["ground_truth_sha256"]:
        findings.append("ground truth: the images are not those that were compared with (another hash)")
    for row in content["rows"]:
        if row.get("pictures") is None:  # the mean image and white are made of the ground truth
            continue
        images = _images(report.parent, row["pictures"], views, findings)
        if images is None or truth is None:
            continue
        if images_hash(images) != row["predictions_sha256"]:
            findings.append(f"{row['variant']}: the images are not those that were scored (another hash)")
        findings += _scores_that_differ(row, images, truth, views)
    return findings


def _read(report: Path) -> dict[str, Any]:
    try:
        content = json.loads(report.read_text(encoding="utf8"))
        rows = content["rows"]
        kept = any(row.get("pictures") for row in rows) and content["protocol"]["views"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{report} is no report.json of eugen-eval: {type(error).__name__}") from error
    if not kept:
        raise RunError(f"{report} names no images: it was written with --no-save-images, or by an older version")
    return content


def _images(folder: Path, subfolder: str, views: Sequence[int], findings: list[str]) -> list[Image8] | None:
    inside = (folder / subfolder).resolve()
    if not inside.is_relative_to(folder.resolve()):
        findings.append(f"{subfolder}: lies outside of the report's folder")
        return None
    images = []
    for view in views:
        path = inside / f"{view:04d}.png"
        try:
            with Image.open(path) as image:
                if image.mode != "RGB":
                    findings.append(f"{path}: is {image.mode}, not 8-bit RGB")
                    return None
                images.append(np.array(image))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            findings.append(f"{path}: is not there, or no image")
            return None
    return images


def _scores_that_differ(
    row: dict[str, Any], images: Sequence[Image8], truth: Sequence[Image8], views: Sequence[int]
) -> list[str]:
    findings = []
    for name, metric in (("psnr", psnr), ("ssim", ssim)):
        stated, computed = row[f"{name}_per_view"], []
        for view, image, other, value in zip(views, images, truth, stated, strict=True):
            if image.shape != other.shape:
                return [f"{row['variant']}: view {view} is {image.shape[:2]}, its photograph {other.shape[:2]} pixels"]
            computed.append(metric(image, other))
            if value is not None and not abs(value - computed[-1]) <= _TOLERANCE:
                what = f"{row['variant']}: {name} of view {view}"
                findings.append(f"{what} is {value:.4f} in the report, {computed[-1]:.4f} of its image")
        mean = float(np.mean(computed))
        if row[name] is not None and not abs(row[name] - mean) <= _TOLERANCE:
            findings.append(f"{row['variant']}: {name} is {row[name]:.4f} in the report, {mean:.4f} of its images")
    return findings
