"""The data manager of this package's methods: nerfstudio's own, with its data set checked before it is used."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.dnerf_dataparser import DNeRFDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset

from eugen_nerf.data.background import KEY, data_background
from eugen_nerf.data.checks import ImageCheck, check_blender_directory, check_dataparser_outputs, check_directory


@dataclass
class EugenDataManagerConfig(VanillaDataManagerConfig):
    """A ray-based data manager that checks its data set first."""

    _target: type = field(default_factory=lambda: EugenDataManager)
    """Target class to instantiate."""


class EugenDataManager(VanillaDataManager[InputDataset]):
    """`VanillaDataManager` that refuses a data set that cannot be used with one clear line.

    The directory of a Blender-format (or D-NeRF-format) data set is checked before its parser runs, and what any parser
    returned before a data set is made of it. In inference mode images may be absent, except the one that the Blender
    parser reads the size from.

    Arguments:
        config, device, test_mode, world_size, local_rank: as in `VanillaDataManager`.

    Raises:
        DataError: a data set that cannot be used.
    """

    config: EugenDataManagerConfig

    def __init__(
        self,
        config: EugenDataManagerConfig,
        device: torch.device | str = "cpu",
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        **kwargs: object,
    ) -> None:
        _check_source(config, test_mode)
        super().__init__(config, device, test_mode, world_size, local_rank, **kwargs)

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

    def setup_eval(self) -> None:
        """As nerfstudio's, but for a trap: `ns-render spiral` mixes the focal lengths of its first camera, which
        Blender's and D-NeRF's parsers make doubles, with poses that are none, and torch refuses.
        """
        super().setup_eval()
        cameras = self.eval_dataloader.cameras  # a copy: the data set's own stays as it is
        cameras.fx, cameras.fy = cameras.fx.float(), cameras.fy.float()

    def _check(self, outputs: DataparserOutputs, split: str) -> None:
        """Generic checks; images only where no earlier check decoded them."""
        decoded = isinstance(self.config.dataparser, _BLENDER_LIKE) or self.test_mode == "inference"
        check_dataparser_outputs(outputs, split=split, images="none" if decoded else "all")


_BLENDER_LIKE = (BlenderDataParserConfig, DNeRFDataParserConfig)


def _check_source(config: EugenDataManagerConfig, test_mode: str) -> None:
    """Checks what can be checked before the parser exists; raises `DataError`.

    The data manager's own `data` wins over its parser's, as in `VanillaDataManager.__init__`.
    """
    parser = config.dataparser
    path = Path(config.data if config.data is not None else parser.data)
    if isinstance(parser, _BLENDER_LIKE):
        splits = ("train", "test" if test_mode in ("test", "inference") else "val")
        images: ImageCheck = "first" if test_mode == "inference" else "all"
        check_blender_directory(path, splits, images=images, times=isinstance(parser, DNeRFDataParserConfig))
    elif not path.is_file():  # some parsers read a single file, a minimal data set or a transforms.json
        check_directory(path)
