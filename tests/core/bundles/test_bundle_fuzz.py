"""Damaged bundles, at random with fixed seeds: each is refused in one line, or loads and can be evaluated."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import evaluate, make

from eugen_nerf.core import BundleError, load_bundle, save_bundle

pytest.importorskip("safetensors")
JSON, WEIGHTS = "bundle.json", "weights.safetensors"
STRANGE: list[Any] = [
    *(None, True, 0, 1, -1, 2, 3, 1 << 31, 10**40, 0.5, 1e300, "", "relu", "box", "float16", "\ud800", "a\nb"),
    *([], [0], [[0]], [1] * 500, {}, {"kind": "box"}),
]


def damage(content: bytes, chance: random.Random, near: int) -> bytes:
    """Flips a few bits or bytes, inserts, or cuts; half of the places are among the first `near` bytes."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        place = chance.randrange(min(near, len(data)) if chance.random() < 0.5 else len(data))
        match chance.choice(["bit", "bit", "byte", "digit", "insert", "remove", "cut"]):
            case "bit":
                data[place] ^= 1 << chance.randrange(8)
            case "byte":
                data[place] = chance.randrange(256)
            case "digit":
                data[place] = chance.choice(b'0123456789-.eE[]{}",: ')
            case "insert":
                data[place:place] = chance.randbytes(chance.choice([1, 4, 100]))
            case "remove":
                del data[place : place + chance.choice([1, 4, 100])]
            case _:
                del data[max(1, place) :]
        if not data:
            break
    return bytes(data)


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value inside a JSON document lies, as keys from its root."""
    if before:
        yield before
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inside:
        yield from places(child, (*before, key))


def at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def rewrite(document: dict[str, Any], chance: random.Random) -> bytes:
    """The document with one value gone, replaced by a strange one, or by another of its own."""
    changed, all_places = copy.deepcopy(document), list(places(document))
    *path, key = chance.choice(all_places)
    parent = at(changed, tuple(path))
    match chance.choice(["remove", "strange", "other", "other"]):
        case "remove":
            del parent[key]
        case "strange":
            parent[key] = chance.choice(STRANGE)
        case _:
            parent[key] = copy.deepcopy(at(document, chance.choice(all_places)))
    return json.dumps(changed).encode()


def split(weights: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of the weights' file, and what follows it."""
    end = 8 + int(struct.unpack("<Q", weights[:8])[0])
    return json.loads(weights[8:end]), weights[end:]


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
        assert "\n" not in message
        assert len(message) < 600
        message.encode()  # it can be printed
    return refused, loaded


@pytest.mark.parametrize("kind", ["moving", "pyramid", "distance"])
def test_damaged_bytes(kind: str, tmp_path: Path) -> None:
    folder, chance = tmp_path / "bundle", random.Random(0)
    save_bundle(make(kind), folder)
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
    save_bundle(make(kind), folder)
    description, weights = (folder / JSON).read_bytes(), (folder / WEIGHTS).read_bytes()
    header, numbers = split(weights)

    def variants() -> Iterator[tuple[bytes, bytes]]:
        for number in range(240):
            if number % 2:
                yield rewrite(json.loads(description), chance), weights
            else:
                changed = rewrite(header, chance)
                yield description, struct.pack("<Q", len(changed)) + changed + numbers

    refused, _ = try_all(folder, variants())
    assert refused > 150
