"""The data manager of this package's methods: nerfstudio's own, which reads and checks the data set first."""

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
from eugen_nerf.data.image_background import BACKGROUND_KEY, data_background
from eugen_nerf.data.images.image_parser import ImageParser
from eugen_nerf.data.images.photograph_dataset import MaskedPixelSampler, PhotographDataset


@dataclass
class EugenDataManagerConfig(VanillaDataManagerConfig):
    """A ray-based data manager that checks its data set first."""

    _target: type = field(default_factory=lambda: EugenDataManager)
    """Target class to instantiate."""


class EugenDataManager(VanillaDataManager[InputDataset]):
    """`VanillaDataManager` that reads common formats and rejects unusable data with one clear line.

    `ImageParser` reads common formats in place of nerfstudio's parsers. The outputs of any parser are checked before a
    data set is made from them. In inference mode images may be absent, except one where the data set does not state
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
        """Photographs, rotated where their cameras require it."""
        return PhotographDataset

    @property
    def dataparser(self) -> DataParser:
        """The parser that reads the data set."""
        return self._reader

    @dataparser.setter
    def dataparser(self, parser: DataParser) -> None:
        """nerfstudio's constructor sets its parser here, and reads with the parser it gets back."""
        own = type(parser).__module__.partition(".")[0] == __name__.partition(".")[0]
        self._reader = parser if own else ImageParser(parser)

    def create_train_dataset(self) -> InputDataset:
        """The training data set, after a check of its parser's outputs; raises `DataError`.

        Its metadata, which nerfstudio's pipeline passes to the model, hold the background colour.
        """
        self._check(self.train_dataparser_outputs, "train")
        dataset = super().create_train_dataset()
        if self.test_mode != "inference":  # images may be absent; the checkpoint has the colour
            dataset.metadata[BACKGROUND_KEY] = data_background(dataset)
        return dataset

    def create_eval_dataset(self) -> InputDataset:
        """The validation or test data set, after a check of its parser's outputs; raises `DataError`."""
        outputs = self.dataparser.get_dataparser_outputs(split=self.test_split)
        self._check(outputs, self.test_split)
        return self.dataset_type(dataparser_outputs=outputs, scale_factor=self.config.camera_res_scale_factor)

    def check_test_split(self) -> None:
        """Checks the test split, which training does not read: a run that cannot be evaluated should not start.

        Raises:
            DataError: the split cannot be used.
        """
        assert isinstance(self.eval_dataset, InputDataset)
        outputs = self.dataparser.get_dataparser_outputs(split="test")
        if outputs.image_filenames != self.eval_dataset.image_filenames:
            self._check(outputs, "test")

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """As nerfstudio's, with the pixels on the device.

        nerfstudio leaves them on the CPU. Copying them later waits for all work that the forward pass has queued on a
        GPU.
        """
        rays, batch = super().next_train(step)
        return rays, self.send_to_device(batch)

    def send_to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A training batch whose pixels are copied to the device asynchronously."""
        if torch.device(self.device).type == "cuda":
            batch["image"] = batch["image"].pin_memory().to(self.device, non_blocking=True)
        return batch

    def setup_train(self) -> None:
        """As nerfstudio's, but several image sizes among the evaluation images select the other collation too."""
        assert isinstance(self.eval_dataset, InputDataset)
        if self.train_dataset.cameras.is_jagged or self.eval_dataset.cameras.is_jagged:
            self.config.collate_fn = variable_res_collate
        super().setup_train()

    def setup_eval(self) -> None:
        """As nerfstudio's, with float32 focal lengths.

        The Blender and D-NeRF parsers make float64, and `ns-render spiral` would mix them with float32 poses, which
        torch rejects.
        """
        super().setup_eval()
        cameras = self.eval_dataloader.cameras  # a copy: the data set's own stays as it is
        cameras.fx, cameras.fy = cameras.fx.float(), cameras.fy.float()

    def _get_pixel_sampler(self, dataset: InputDataset, num_rays_per_batch: int) -> PixelSampler:
        """As nerfstudio's, with support for masks on which its own sampler fails."""
        sampler = super()._get_pixel_sampler(dataset, num_rays_per_batch)
        return MaskedPixelSampler(sampler.config, **sampler.kwargs) if type(sampler) is PixelSampler else sampler

    def _check(self, outputs: DataparserOutputs, split: str) -> None:
        """Checks poses, lenses and, where they are needed, files. Prints a note where EXIF rotations are ignored."""
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
