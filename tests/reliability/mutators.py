"""Changes of files that others may have written: of their bytes, and of the values of a document.

Every change is drawn from a `random.Random`; hypothesis hands one out too (``strategies.randoms``), and makes what
fails smaller.
"""

from __future__ import annotations

import copy
import json
import random
import re
import struct
from collections.abc import Iterator
from typing import Any

STRANGE: list[Any] = [
    *(None, True, 0, 1, -1, 2, 3, 1 << 31, 10**40, 10**400, 0.5, 1e300, "", "relu", "box", "float16", "\ud800", "a\nb"),
    *([], [0], [[0]], [1] * 500, {}, {"kind": "box"}, "../../up", "a/b", "x" * 300, "{0}", float("nan"), -0.0),
]
"""Values that stand anywhere in a document."""
SCALARS = (
    *("null", "true", "-1", "0", "1e999", ".nan", "1" * 5000, "''", '"\\0"', '"\\uD800"', "../../up", "a/b", "[]"),
    *("{}", "[[]]", "{a: 1}", "!!python/tuple []", "!!python/name:os.system ''", "!!int x", "!!timestamp x", "*x"),
    *("&x 1", "!!python/object/apply:os.abort []", "!!binary x", "? x", "- x", "2026-99-99", "1:2", "<<", "{<<: {}}"),
    *("!!python/object/apply:pathlib.PosixPath [a]", "!!set {a}", "{? [a] : b}", "\u00e4" * 300, "\t", "@", "%x"),
)
"""Texts that stand in the place of a value of YAML."""
WORDS = ("nan", "inf", "-1", "0", "1e999", "1e300", "x", "1" * 5000, "../../up", "x" * 300, "/dev/null", "\0", "\u00e4")
"""Texts that stand in the place of a word."""
_LINE = re.compile(r"^(\s*(?:- )?(?:[\w.-]+:|-))( .*)?$")


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
                data[place:place] = bytes(chance.randrange(256) for _ in range(chance.choice([1, 4, 100])))
            case "remove":
                del data[place : place + chance.choice([1, 4, 100])]
            case _:
                del data[max(1, place) :]
        if not data:
            break
    return bytes(data)


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value inside a document lies, as keys from its root."""
    if before:
        yield before
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inside:
        yield from places(child, (*before, key))


def rewrite(document: dict[str, Any], chance: random.Random) -> Any:
    """The document with one value gone, replaced by a strange one, or by another of its own."""
    changed, all_places = copy.deepcopy(document), list(places(document))
    *path, key = chance.choice(all_places)
    parent = _at(changed, tuple(path))
    match chance.choice(["remove", "strange", "other", "other"]):
        case "remove":
            del parent[key]
        case "strange":
            parent[key] = chance.choice(STRANGE)
        case _:
            parent[key] = copy.deepcopy(_at(document, chance.choice(all_places)))
    return changed


def rewrite_json(document: dict[str, Any], chance: random.Random) -> bytes:
    """As `rewrite`, as a file of JSON."""
    return json.dumps(rewrite(document, chance)).encode()


def rewrite_yaml(text: str, chance: random.Random) -> bytes:
    """A text of YAML with a few of its lines gone, moved, deeper, or with another value, tags of Python among them."""
    lines = text.split("\n")
    for _ in range(chance.choice([1, 1, 2, 3])):
        at = chance.randrange(len(lines))
        match chance.choice(["value", "value", "value", "other", "remove", "twice", "deeper"]):
            case "value":
                lines[at] = _LINE.sub(lambda match: f"{match[1]} ", lines[at]) + chance.choice(SCALARS)
            case "other":
                lines[at] = lines[chance.randrange(len(lines))]
            case "remove":
                del lines[at]
            case "twice":
                lines.insert(at, lines[at])
            case _:
                lines[at] = " " * chance.choice([1, 2, 4]) + lines[at]
        if not lines:
            break
    return "\n".join(lines).encode("utf8", "surrogatepass")


def rewrite_words(text: str, chance: random.Random) -> bytes:
    """A text of lines of words with a few of its words or lines gone, or others in their place."""
    lines = [line.split() for line in text.split("\n")]
    for _ in range(chance.choice([1, 1, 2, 3])):
        line = chance.choice(lines)
        at = chance.randrange(len(line)) if line else 0
        match chance.choice(["word", "word", "remove", "line", "other"]):
            case "word":
                line[at : at + 1] = [chance.choice(WORDS)]
            case "remove":
                del line[at : at + 1]
            case "line":
                line[:] = []
            case _:
                line[:] = chance.choice(lines)
    return "\n".join(" ".join(line) for line in lines).encode("utf8", "surrogatepass")


def header_of(weights: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what follows it."""
    end = 8 + int(struct.unpack("<Q", weights[:8])[0])
    return json.loads(weights[8:end]), weights[end:]


def with_header(header: bytes, numbers: bytes) -> bytes:
    """A safetensors file of the two."""
    return struct.pack("<Q", len(header)) + header + numbers


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value
