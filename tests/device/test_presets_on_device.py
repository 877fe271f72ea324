"""Every preset on the pretended device: it trains, renders, and is loaded again; and what a step costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from preset_runs import presets
from pretend import device_of, pretend_cuda

from eugen_nerf.methods.runs.loading import load_run

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer
    from pretend import Counts

GPU = torch.device("cuda", 0)
PUBLISHED = Path(__file__).resolve().parents[2] / "docs/results/data/launches_pretended.json"
SLACK = 1.03
"""How much more than the table says is let pass."""
CEILINGS = {
    "eugen-dnerf": (975, 665, 15),
    "eugen-dnerf-hash": (2011, 1867, 15),
    "eugen-dnerf-hash-small": (1315, 1243, 15),
    "eugen-dnerf-small": (697, 531, 15),
    "eugen-isdf": (441, 423, 12),
    "eugen-isdf-small": (425, 407, 12),
    "eugen-mipnerf360": (1995, 1912, 20),
    "eugen-mipnerf360-paper": (1980, 1912, 20),
    "eugen-mipnerf360-small": (1912, 1930, 20),
    "eugen-nerf": (620, 454, 15),
    "eugen-nerf-paper": (600, 454, 15),
    "eugen-nerf-small": (505, 521, 17),
    "eugen-ngp": (916, 878, 31),
    "eugen-ngp-small": (713, 740, 31),
    "eugen-zipnerf": (3365, 3347, 20),
    "eugen-zipnerf-paper": (3366, 3347, 20),
    "eugen-zipnerf-small": (2914, 2918, 20),
}
"""Launches of a training step of the variant eugen, and of its dense twin, and waits of the host in either; what the
code takes now."""
ADVICE = (
    "Where that is meant, run `python scripts/launch_counts.py`, which writes "
    "docs/results/data/launches_pretended.json, and write what it prints into CEILINGS of this test."
)
Trained = Callable[[str, str], tuple["Trainer", "Counts"]]


STEPS = [(preset, "eugen") for preset in presets()]
STEPS += [(preset, "dense") for preset in presets() if preset.endswith("-small")]


@pytest.mark.parametrize(("preset", "variant"), STEPS)
def test_a_training_step_takes_no_more_than_it_did(preset: str, variant: str, trained: Trained) -> None:
    trainer, counts = trained(preset, variant)
    model = trainer.pipeline.model
    assert {device_of(tensor) for tensor in (*model.parameters(), *model.buffers())} == {GPU}
    eugen, dense, waits = CEILINGS[preset]
    for what, found, expected in (
        ("launches", counts.launches, eugen if variant == "eugen" else dense),
        ("waits", counts.waits, waits),
    ):
        total, most = found.total(), int(expected * SLACK)
        places = "\n".join(f"  {n} {place}" for place, n in found.most_common(12))
        assert total <= most, f"{total} {what} a step of {preset} ({variant}), {expected} before. {ADVICE}\n{places}"
        assert total >= 0.9 * expected, f"only {total} {what} a step of {preset}, {expected} before. {ADVICE}"


def test_the_published_counts_are_those_of_the_table() -> None:
    rows = {(row["preset"], row["variant"]): row for row in json.loads(PUBLISHED.read_text())["rows"]}
    assert {preset for preset, _ in rows} == set(presets()) == set(CEILINGS)
    for preset, (eugen, dense, waits) in CEILINGS.items():
        for variant, launches in (("eugen", eugen), ("dense", dense)):
            row = rows[preset, variant]
            assert (row["launches"], row["waits"]) == (launches, waits), ADVICE


@pytest.mark.parametrize("preset", presets())
def test_a_run_is_loaded_where_it_was_trained_and_on_a_cpu(
    preset: str, trained: Trained, device_run: Callable[[str, str], Path]
) -> None:
    """And renders the same on both: the numbers are the CPU's."""
    trainer, path = trained(preset, "eugen")[0], device_run(preset, "eugen")
    pictures = []
    with pretend_cuda():
        run = load_run(path)
        assert run.model.device == GPU
        pictures.append(run.model.get_outputs_for_camera(run.pipeline.datamanager.eval_dataset.cameras[:1]))
        assert {value.device.type for value in pictures[0].values()} == {"cpu"}, "nerfstudio brings them back"
    run = load_run(path, device="cpu")
    pictures.append(run.model.get_outputs_for_camera(run.pipeline.datamanager.eval_dataset.cameras[:1]))
    for name, value in trainer.pipeline.model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value), name
    there, here = pictures
    assert there.keys() == here.keys()
    for name, value in here.items():
        torch.testing.assert_close(there[name], value, rtol=1e-4, atol=1e-5)
