"""A data parser in front of nerfstudio's: it reads common formats, and rejects others in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.utils.colors import get_color
from nerfstudio.utils.rich_utils import CONSOLE

from eugen_nerf.core.errors import DataError, EugenError
from eugen_nerf.data.images.downscaling import DownscaledCopies
from eugen_nerf.data.images.layouts import SUPPORTED_PARSERS, read_image_set
from eugen_nerf.data.images.parser_settings import PlacementSettings, placement_settings
from eugen_nerf.data.images.placing import FarOutputs, check_outliers, orient_and_scale
from eugen_nerf.data.images.posed import ImageSet, PosedImage
from eugen_nerf.data.images.splitting import split_indices
from eugen_nerf.data.lenses.lens_inverse import check_inverse
from eugen_nerf.data.lenses.lens_reading import PhotographLens
from eugen_nerf.data.poses import check_directory


class ImageParser(DataParser):
    """nerfstudio's data parser for the same settings; formats of `SUPPORTED_PARSERS` are read by this package.

    On data sets that nerfstudio reads correctly, the outputs equal its own bit for bit.

    Arguments:
        parser: nerfstudio's; it reads formats other than those of `SUPPORTED_PARSERS`.

    Attributes:
        downscale_factor: set by nerfstudio's data manager for data without images; None uses the settings.
    """

    def __init__(self, parser: DataParser) -> None:
        super().__init__(parser.config)
        self.parser = parser
        self.includes_time = parser.includes_time
        self.downscale_factor: int | None = None
        self._read: dict[str, ImageSet] = {}
        self._announced: set[str] = set()

    def images(self, split: str) -> ImageSet:
        """The data set as stored, with at least the images of a split; raises `DataError`."""
        key = split if self._settings.like_blender else ""
        if key not in self._read:
            self._read[key] = read_image_set(self.config, split)
        return self._read[key]

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        """Outputs of a split; raises `DataError` where it cannot be read."""
        path = Path(self.config.data)
        read_here = isinstance(self.config, SUPPORTED_PARSERS)
        if not read_here and not path.is_file():  # some parsers read a single file
            check_directory(path)
        try:
            if read_here:
                return self._outputs(split)
            if self.downscale_factor is not None:
                self.parser.downscale_factor = self.downscale_factor  # type: ignore[attr-defined]
            return self.parser.get_dataparser_outputs(split=split, **kwargs)
        except EugenError:
            raise
        except (Exception, SystemExit) as error:  # a parser may raise anything on an unexpected file
            text = " ".join(str(error).split()) or "no details"
            raise DataError(
                f"{type(self.parser).__name__}, the data parser, cannot read the {split} split of '{path}': "
                f"{type(error).__name__}: {text}; check the directory and its files, or name another data parser"
            ) from error

    def _outputs(self, split: str) -> DataparserOutputs:
        """Outputs of a split of a data set in a supported format."""
        images, settings = self.images(split), self._settings
        chosen = self._indices(images, split)
        copies = self._downscaled(images)
        poses = np.stack([image.pose for image in images.images])
        check_outliers(poses[:, :3, 3], [f"{image.where} ('{image.path.name}')" for image in images.images])
        placed, transform, scale = orient_and_scale(
            poses,
            orientation=images.orientation or settings.orientation,
            centre=settings.centre,
            fit=settings.fit,
            scale=settings.scale,
        )
        photographs = [copies.photograph(images.images[i]) for i in chosen]
        if images.applied is not None:
            applied = np.concatenate([images.applied, [[0.0, 0.0, 0.0, 1.0]]])
            transform = transform @ torch.from_numpy(applied).to(transform.dtype)
        cameras = make_cameras(photographs, placed[chosen], doubles=settings.like_blender)
        if images.crop_radius is not None and all(image.lens.kind.startswith("FISHEYE") for image in photographs):
            cameras.metadata = {"fisheye_crop_radius": images.crop_radius / copies.factor}
        outputs = FarOutputs if transform.dtype == torch.float64 else DataparserOutputs
        box = settings.box * (images.box if settings.boxed_by_data else 1.0)
        return outputs(
            image_filenames=[image.path for image in photographs],
            cameras=cameras,
            alpha_color=self._alpha_color(images),
            scene_box=SceneBox(aabb=torch.tensor([[-box] * 3, [box] * 3], dtype=torch.float32)),
            mask_filenames=self._masks(images, photographs),
            dataparser_transform=transform,
            dataparser_scale=scale * images.applied_scale,
            metadata={} if settings.like_blender else {"mask_color": getattr(self.config, "mask_color", None)},
        )

    @cached_property
    def _settings(self) -> PlacementSettings:
        return placement_settings(self.config)

    def _downscaled(self, images: ImageSet) -> DownscaledCopies:
        """Downscaled copies; the factor chosen for the first split is used for all."""
        if self.downscale_factor is None:
            copies = DownscaledCopies(images, getattr(self.config, "downscale_factor", 1))
            self.downscale_factor = copies.factor
            return copies
        return DownscaledCopies(images, self.downscale_factor)

    def _indices(self, images: ImageSet, split: str) -> list[int]:
        """Indices of the images of a split. Prints a note once if another split is used in its place."""
        chosen, substitute = split_indices(images, self.config, split)
        if substitute is not None and split not in self._announced:
            self._announced.add(split)
            CONSOLE.print(
                f"'{images.source}' has no {split} split: its {substitute} split is used for it", markup=False
            )
        return chosen

    def _alpha_color(self, images: ImageSet) -> torch.Tensor | None:
        """Colour on which alpha is composited; None keeps alpha."""
        name = getattr(self.config, "alpha_color", "white" if images.transparent else None)
        return None if name is None else get_color(name)

    def _masks(self, images: ImageSet, photographs: Sequence[PosedImage]) -> list[Path] | None:
        """The masks of a split; None if the data set has none. Raises `DataError` if only some images have one."""
        without = [image for image in images.images if image.mask is None]
        if len(without) == len(images.images):
            return None
        if without:
            raise DataError(
                f"{len(without)} of {len(images.images)} images have no mask, the first is {without[0].where} "
                f"('{without[0].path.name}'): give each frame a 'mask_path' (white where all is used), or none"
            )
        return [image.mask for image in photographs if image.mask is not None]


def make_cameras(photographs: Sequence[PosedImage], poses: torch.Tensor, *, doubles: bool) -> Cameras:
    """nerfstudio's cameras.

    Arguments:
        photographs: one per camera.
        poses: camera-to-world [N, 3, 4].
        doubles: float64 focal lengths, and no distortion if all is 0, as in nerfstudio's Blender parser.

    Raises `DataError` for lenses that nerfstudio's ray generation does not support.
    """
    for lens, image in {image.lens: image for image in photographs}.items():
        check_inverse(lens, image.where)
    lenses = [_avoid_pixel_centre(image.lens) for image in photographs]
    lengths = {len(lens.distortion) for lens in lenses}
    if len(lengths) > 1:
        raise DataError("FISHEYE624 lenses stand beside others, which nerfstudio cannot mix: split the data set")
    distortion = torch.tensor([lens.distortion for lens in lenses], dtype=torch.float32)

    def column(name: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor([getattr(lens, name) for lens in lenses], dtype=dtype)[:, None]

    focal = torch.float64 if doubles else torch.float32
    times = [image.time for image in photographs]
    return Cameras(
        camera_to_worlds=poses,
        fx=column("fx", focal),
        fy=column("fy", focal),
        cx=column("cx"),
        cy=column("cy"),
        width=column("width", torch.int64),
        height=column("height", torch.int64),
        distortion_params=None if doubles and not distortion.any() else distortion,
        camera_type=[CameraType[lens.kind] for lens in lenses],
        times=None if None in times else torch.tensor(times, dtype=torch.float32),
    )


def _avoid_pixel_centre(lens: PhotographLens) -> PhotographLens:
    """Moves a fisheye's principal point off a pixel's centre, where nerfstudio's ray would be 0 / 0."""
    if lens.kind == "FISHEYE" and lens.cx % 1 == 0.5 and lens.cy % 1 == 0.5:
        return replace(lens, cx=lens.cx + 1e-3)
    return lens
