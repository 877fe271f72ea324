"""COLMAP's steps in a process of their own: `python -m eugen_nerf.data.photographs.colmap_process IMAGES WORK`.

A separate process, because progress is read from COLMAP's database meanwhile, and two copies of SQLite in one process
undo each other's locks; because COLMAP writes much to standard error; and because a crash of COLMAP must be reported.

WORK gets `database.db`, a byte in `placed` for every image that is placed, and the best model in the folder `best`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

MIN_IMAGES_FOR_CENTRE = 30
"""Minimum number of images for refining the principal point of a shared lens; fewer keep it in the middle."""


def main(images: Path, work: Path) -> None:
    """Finds features, matches all pairs, places cameras; writes no `best` if no image can be placed."""
    import pycolmap

    database = work / "database.db"
    sizes = {Image.open(path).size for path in images.iterdir()}
    pycolmap.extract_features(
        database,
        images,
        camera_mode=pycolmap.CameraMode.SINGLE if len(sizes) == 1 else pycolmap.CameraMode.AUTO,
        reader_options=pycolmap.ImageReaderOptions(camera_model="OPENCV"),
        device=pycolmap.Device.cpu,
    )
    pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
    options = pycolmap.IncrementalPipelineOptions(random_seed=0, min_model_size=3)
    with (work / "placed").open("ab", buffering=0) as placed:

        def count() -> None:
            placed.write(b".")

        found = pycolmap.incremental_mapping(database, images, work, options=options, next_image_callback=count)
    best = max(found.values(), key=lambda model: model.num_reg_images(), default=None)
    if best is None:
        return
    if len(best.cameras) == 1 and best.num_reg_images() >= MIN_IMAGES_FOR_CENTRE:
        pycolmap.bundle_adjustment(best, pycolmap.BundleAdjustmentOptions(refine_principal_point=True))
    (work / "best").mkdir()
    best.write(work / "best")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
