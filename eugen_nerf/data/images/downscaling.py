"""Smaller copies of photographs, in folders such as images_2 beside the full ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nerfstudio.utils.rich_utils import CONSOLE

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.images.file_names import ImageFinder
from eugen_nerf.data.images.image_files import image_size
from eugen_nerf.data.images.posed import ImageSet, PosedImage

MAX_FULL_SIZE = 1600
"""Pixels of the longer side above which downscaled copies are used, if there are any."""
_SCALE_OPTION = "--pipeline.datamanager.camera-res-scale-factor"


class DownscaledCopies:
    """Replaces photographs by downscaled copies.

    Arguments:
        images: the data set.
        factor: how many times smaller; None chooses the first of 1, 2, 4, ... that is small enough or the last with
            copies.
    """

    def __init__(self, images: ImageSet, factor: int | None) -> None:
        self.images = images
        self.finder = ImageFinder(images.root)
        self.factor = self._automatic_factor() if factor is None else factor
        if self.factor < 1:
            raise DataError(f"--downscale-factor must be at least 1, not {self.factor}")

    def photograph(self, image: PosedImage) -> PosedImage:
        """An image at this factor: its files, and a lens for the actual size of the copy.

        Copies may be rounded up or down. Raises `DataError` where a copy is missing or has another size.
        """
        if self.factor == 1:
            return image
        path = self._copy(image.path, self.images.images_folder)
        if not path.is_file():
            share = 1 / self.factor
            raise DataError(
                f"'{path}' is missing, the copy of '{image.path}' {self.factor} times smaller: make all of them "
                f"(mogrify -resize {100 * share:g}% -path {path.parent.name} images/*), or leave --downscale-factor "
                f"out and write {_SCALE_OPTION} {share:g}"
            )
        size, full = image_size(path), (image.lens.width, image.lens.height)
        if any(abs(small * self.factor - large) >= self.factor for small, large in zip(size, full, strict=True)):
            raise DataError(
                f"image '{path}' is {size[0]}x{size[1]} pixels where a copy {self.factor} times smaller than its "
                f"camera of {full[0]}x{full[1]} is {full[0] / self.factor:g}x{full[1] / self.factor:g}, rounded up or "
                "down: make the copy again"
            )
        mask = None if image.mask is None else self._copy(image.mask, Path("masks"))
        return replace(image, path=path, mask=mask, lens=image.lens.resized(*size))

    def _copy(self, path: Path, folder: Path) -> Path:
        """Path of the downscaled copy of a file: in its own folder's counterpart, or in one common folder."""
        root = self.images.root
        inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        top = inside.parts[0] if len(inside.parts) > 1 else folder.name
        nested = root / f"{top}_{self.factor}" / Path(*inside.parts[1:])
        if len(inside.parts) > 1 and nested.is_file():
            return nested
        return self.finder.find(f"{folder.name}_{self.factor}/{path.name}", "", "the list of smaller copies")

    def _automatic_factor(self) -> int:
        """The factor that nerfstudio would choose; prints a note where large photographs have no copies."""
        first = self.images.images[0]
        longest = max(image_size(first.path) if first.path.is_file() else (first.lens.width, first.lens.height))
        self.factor = 1
        while longest / self.factor > MAX_FULL_SIZE:
            self.factor *= 2
            if not self._copy(first.path, self.images.images_folder).is_file():
                self.factor //= 2
                CONSOLE.print(
                    f"photographs of {longest // self.factor} pixels are used as they are, for want of smaller copies "
                    f"in '{self.images.images_folder}_{2 * self.factor}': {_SCALE_OPTION} 0.5 halves them in memory",
                    markup=False,
                )
                break
        if self.factor > 1:
            CONSOLE.print(f"photographs are read {self.factor} times smaller, from their copies", markup=False)
        return self.factor
