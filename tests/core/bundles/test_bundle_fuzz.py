"""Damaged bundles, at random with fixed seeds: each is refused in one line, or loads and can be evaluated."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import RENDERED, evaluate, make, with_scene
from mutators import damage, header_of, rewrite_json, with_header

from eugen_nerf.core import BundleError, load_bundle, save_bundle
from eugen_nerf.core.bundles.bundled_field import BundledField

pytest.importorskip("safetensors")
JSON, WEIGHTS = "bundle.json", "weights.safetensors"


def try_all(folder: Path, variants: Iterator[tuple[bytes, bytes]]) -> tuple[int, int]:
    """How many of the pairs of files are refused, and how many load."""
    refused = loaded = 0
    for description, weights in variants:
        (folder / JSON).write_bytes(description)
        (folder / WEIGHTS).write_bytes(weights)
        try:
            field = load_bundle(folder)
        except BundleError as caught:
            message = str(caught)
            refused += 1
        else:
            message = ""
            loaded += 1
            assert all(bool(t.isfinite().all()) for t in field.state_dict().values())
            evaluate(field)
            render(field)
        assert "\n" not in message
        assert len(message) < 600
        message.encode()  # it can be printed
    return refused, loaded


def written(kind: str, folder: Path) -> None:
    """A bundle, with a scene where its kind can have one."""
    save_bundle(with_scene(kind) if kind in RENDERED else make(kind), folder)


def render(field: BundledField) -> None:
    """Some pixels of each test view."""
    if field.scene is None or field.scene.renderer is None:
        return
    for camera in field.cameras[:2]:
        if camera.width < 100 * camera.height:  # what is kept of it stays small
            assert field.render(camera.resized(2)).colour.shape[::2] == (2, 3)


@pytest.mark.parametrize("kind", ["moving", "pyramid", "distance"])
def test_damaged_bytes(kind: str, tmp_path: Path) -> None:
    folder, chance = tmp_path / "bundle", random.Random(0)
    written(kind, folder)
    description, weights = (folder / JSON).read_bytes(), (folder / WEIGHTS).read_bytes()
    header = 8 + struct.unpack("<Q", weights[:8])[0]

    def variants() -> Iterator[tuple[bytes, bytes]]:
        for number in range(240):
            yield (
                damage(description, chance, len(description)) if number % 3 != 1 else description,
                damage(weights, chance, header) if number % 3 != 0 else weights,
            )

    refused, loaded = try_all(folder, variants())
    assert refused > 150
    assert loaded > 0, "some bits of a weight do no harm"


@pytest.mark.parametrize("kind", ["moving", "contracted", "distance"])
def test_documents_that_say_something_else(kind: str, tmp_path: Path) -> None:
    """Valid JSON with another meaning, in bundle.json and in the weights' header."""
    folder, chance = tmp_path / "bundle", random.Random(1)
    written(kind, folder)
    description, weights = (folder / JSON).read_bytes(), (folder / WEIGHTS).read_bytes()
    header, numbers = header_of(weights)

    def variants() -> Iterator[tuple[bytes, bytes]]:
        for number in range(240):
            if number % 2:
                yield rewrite_json(json.loads(description), chance), weights
            else:
                yield description, with_header(rewrite_json(header, chance), numbers)

    refused, _ = try_all(folder, variants())
    assert refused > 150
