"""eugen-bench roofline: what a step of each method should take on a graphics card, counted without one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from eugen_nerf.core.choices import Variant
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import Range
from eugen_nerf.evaluation.roofline.sets import PRECISIONS, PRESETS
from eugen_nerf.surfaces.files import check_new_file, new_file


@dataclass
class RooflineCommand:
    """Count every operation of a training step, or of the rendering of a chunk of rays, and say what a card needs.

    Nothing is computed: tensors have shapes and no numbers, so sizes are the full ones and a minute is enough. Each
    operation takes as long as the slowest of its launch, its bytes, its products and its random accesses.
    """

    methods: tuple[str, ...] = PRESETS
    """Methods of this package."""
    variants: tuple[Variant, ...] = ("dense", "eugen")
    """Networks."""
    modes: tuple[Literal["train", "eval"], ...] = ("train", "eval")
    """A training step, or a chunk of rays of an image."""
    precisions: tuple[Literal["float32", "tf32", "bfloat16"], ...] = PRECISIONS
    """Of the networks' products."""
    card: Literal["H100", "H200"] = "H100"
    """Whose rates are assumed (`eugen_nerf/evaluation/roofline/cards.py`)."""
    rays: Annotated[int | None, tyro.conf.arg(metavar="INT"), Range(1, 1 << 24)] = None
    """Rays of a step (default: as each method's settings say)."""
    output: Path | None = None
    """A JSON file for all figures."""
    overwrite: bool = False
    """Replace an older file."""

    def run(self) -> None:
        """Counts, prints, writes."""
        if not (self.methods and self.variants and self.modes and self.precisions):
            raise ConfigError("give at least one of --methods, --variants, --modes and --precisions")
        if self.output is not None:
            check_new_file(self.output, overwrite=self.overwrite)
        import torch
        from rich.console import Console

        from eugen_nerf.evaluation.roofline.cards import CARDS
        from eugen_nerf.evaluation.roofline.predictions import predict_rows, row_lines

        console, card, rows = Console(width=200), CARDS[self.card], []
        for method in self.methods:
            for variant in self.variants:
                for mode in self.modes:
                    predicted = predict_rows(method, variant, mode, card, self.precisions, self.rays)
                    rows += predicted
                    for line in (line for row in predicted for line in row_lines(row)):
                        console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self.output is None:
            return
        result = {"device": f"predicted, {card.name}", "card": asdict(card), "torch": torch.__version__, "rows": rows}
        with new_file(self.output, overwrite=self.overwrite) as partial:
            partial.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf8")
        console.print(f"wrote {self.output}", markup=False, highlight=False, soft_wrap=True)
