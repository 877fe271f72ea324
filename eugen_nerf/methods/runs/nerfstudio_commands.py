"""nerfstudio's commands that render, `ns-render` and `ns-viewer`: by the fast renderer, as our own do."""

from __future__ import annotations

import os
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline
from nerfstudio.utils.rich_utils import CONSOLE

from eugen_nerf.core.errors import EugenError
from eugen_nerf.methods.runs.fast_rendering import use_fast_renderer
from eugen_nerf.methods.runs.loading import Run

COMMANDS = ("ns-render", "ns-viewer")
"""Those that show images and neither train nor score."""
EXACT = "EUGEN_EXACT"
"""Environment variable with which they render by the samplers of training."""


OUTPUTS = {"rgb", "rgba", "depth", "accumulation"}
"""What can be had of the fast renderer, by the names of `ns-render --rendered-output-names`."""


def renders_fast() -> bool:
    """Whether this process is one of `COMMANDS`, and wants no more than the fast renderer can give."""
    command, *words = sys.argv
    return Path(command).stem in COMMANDS and not os.environ.get(EXACT) and _wanted_outputs(words) <= OUTPUTS


def _wanted_outputs(words: list[str]) -> set[str]:
    """Outputs that `ns-render` was started for; `gt-` and `raw-` say which of an output's images is written."""
    option = "--rendered-output-names"
    starts = [number for number, word in enumerate(words, start=1) if word.replace("_", "-") == option]
    names = [name for start in starts for name in takewhile(lambda w: not w.startswith("--"), words[start:])]
    return {name.removeprefix("gt-").removeprefix("raw-") for name in names}


class FastPipeline(VanillaPipeline):
    """nerfstudio's pipeline, whose model gets the fast renderer with its weights.

    Args:
        trainer: the run's configuration, whose `load_dir` is the folder of its checkpoints.
        arguments: of `VanillaPipeline`.
        more: likewise.
    """

    def __init__(self, trainer: TrainerConfig, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.trainer = trainer

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """As in nerfstudio; then takes the renderer that is stored beside the run, or builds it from its views."""
        super().load_pipeline(loaded_state, step)
        folder = self.trainer.load_dir
        assert folder is not None
        checkpoint = folder / f"step-{step:09d}.ckpt"
        run = Run(self.trainer, self, checkpoint, step, self.trainer.get_base_dir() / "config.yml")
        try:
            choice = use_fast_renderer(run, progress=_say)
        except EugenError as error:
            _say(f"exact rendering: {error}")
            return
        if choice is not None:
            _say(f"{choice}; {EXACT}=1 renders by the samplers of training")


def _say(line: str) -> None:
    CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)
