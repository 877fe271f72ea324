"""The data manager of this package's methods: nerfstudio's own, with its data set read and checked first."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import (
    VanillaDataManager,
    VanillaDataManagerConfig,
    variable_res_collate,
)
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.pixel_samplers import PixelSampler
from nerfstudio.utils.rich_utils import CONSOLE

from eugen_nerf.data.checks import ImageCheck, check_dataparser_outputs
from eugen_nerf.data.image_background import KEY, data_background
from eugen_nerf.data.images.image_parser import ImageParser
from eugen_nerf.data.images.photograph_dataset import MaskedPixelSampler, PhotographDataset


@dataclass
class EugenDataManagerConfig(VanillaDataManagerConfig):
    """A ray-based data manager that checks its data set first."""

    _target: type = field(default_factory=lambda: EugenDataManager)
    """Target class to instantiate."""


class EugenDataManager(VanillaDataManager[InputDataset]):
    """`VanillaDataManager` that reads what people have, and refuses what cannot be used with one clear line.

    Common formats are read by `ImageParser` in place of nerfstudio's parsers; what any parser returned is checked
    before a data set is made of it. In inference mode images may be absent, except one where the data set does not say
    their size.

    Arguments:
        config, device, test_mode, world_size, local_rank: as in `VanillaDataManager`.

    Raises:
        DataError: a data set that cannot be used.
    """

    config: EugenDataManagerConfig
    _reader: DataParser

    @cached_property
    def dataset_type(self) -> type[InputDataset]:
        """Photographs, turned where they have to be."""
        return PhotographDataset

    @property
    def dataparser(self) -> DataParser:
        """What reads the data set."""
        return self._reader

    @dataparser.setter
    def dataparser(self, parser: DataParser) -> None:
        """nerfstudio's constructor sets its parser here, and reads with what it gets back."""
        own = type(parser).__module__.partition(".")[0] == __name__.partition(".")[0]
        self._reader = parser if own else ImageParser(parser)

    def create_train_dataset(self) -> InputDataset:
        """The training data set, once its parser's outputs are checked; raises `DataError`.

        Its metadata, which nerfstudio's pipeline hands to the model, hold the background's colour.
        """
        self._check(self.train_dataparser_outputs, "train")
        dataset = super().create_train_dataset()
        if self.test_mode != "inference":  # images may be absent there; a checkpoint has the colour
            dataset.metadata[KEY] = data_background(dataset)
        return dataset

    def create_eval_dataset(self) -> InputDataset:
        """The data set of the validation or test split, once its parser's outputs are checked; raises `DataError`."""
        outputs = self.dataparser.get_dataparser_outputs(split=self.test_split)
        self._check(outputs, self.test_split)
        return self.dataset_type(dataparser_outputs=outputs, scale_factor=self.config.camera_res_scale_factor)

    def check_scoring(self) -> None:
        """Checks the test split, which a training does not read: a run that cannot be scored is better not begun.

        Raises:
            DataError: it cannot be used.
        """
        assert isinstance(self.eval_dataset, InputDataset)
        outputs = self.dataparser.get_dataparser_outputs(split="test")
        if outputs.image_filenames != self.eval_dataset.image_filenames:
            self._check(outputs, "test")

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """As nerfstudio's, but for a trap: it leaves pixels on the CPU, and a model that copies them waits for all that
        its forward pass has queued on a GPU.
        """
        rays, batch = super().next_train(step)
        return rays, self.sent(batch)

    def sent(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A training batch with its pixels on the way to the device; nobody waits for them."""
        if torch.device(self.device).type == "cuda":
            batch["image"] = batch["image"].pin_memory().to(self.device, non_blocking=True)
        return batch

    def setup_train(self) -> None:
        """As nerfstudio's, but it looks at evaluation images too for several sizes, which need another collation."""
        assert isinstance(self.eval_dataset, InputDataset)
        if self.train_dataset.cameras.is_jagged or self.eval_dataset.cameras.is_jagged:
            self.config.collate_fn = variable_res_collate
        super().setup_train()

    def setup_eval(self) -> None:
        """As nerfstudio's, but for a trap: `ns-render spiral` mixes the focal lengths of its first camera, which
        Blender's and D-NeRF's parsers make doubles, with poses that are none, and torch refuses.
        """
        super().setup_eval()
        cameras = self.eval_dataloader.cameras  # a copy: the data set's own stays as it is
        cameras.fx, cameras.fy = cameras.fx.float(), cameras.fy.float()

    def _get_pixel_sampler(self, dataset: InputDataset, num_rays_per_batch: int) -> PixelSampler:
        """As nerfstudio's, with masks that it stumbles over."""
        sampler = super()._get_pixel_sampler(dataset, num_rays_per_batch)
        return MaskedPixelSampler(sampler.config, **sampler.kwargs) if type(sampler) is PixelSampler else sampler

    def _check(self, outputs: DataparserOutputs, split: str) -> None:
        """Poses, lenses and, where they are needed, files; says where EXIF would turn pictures that are not turned."""
        images: ImageCheck = "none" if self.test_mode == "inference" else "all"
        facts = check_dataparser_outputs(outputs, split=split, images=images)
        sizes = zip(
            outputs.cameras.width.reshape(-1).tolist(), outputs.cameras.height.reshape(-1).tolist(), strict=True
        )
        stored = [f for f, size in zip(facts, sizes, strict=False) if f.orientation != 1 and f.size == size]
        if stored:
            CONSOLE.print(
                f"{len(stored)} images of the {split} split are used as stored, as COLMAP does, although EXIF would "
                "turn them for display: right where their cameras were found so",
                markup=False,
            )
