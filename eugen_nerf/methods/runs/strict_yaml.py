"""YAML that people write or that comes from others: read as plain data, or refused in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1 << 20
"""Bytes of a file: the configuration of a run has some ten thousand."""
_DEEPEST = 200
ERRORS = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What PyYAML raises on texts that it cannot read; all but the first where a tag does not fit its value."""


class YamlFileError(ValueError):
    """A file that cannot be read as YAML; the message says why in one line."""


class StrictLoader(yaml.SafeLoader):
    """``yaml.SafeLoader`` that refuses a key that stands twice, keys that are no scalars, and merged mappings.

    Of a key that stands twice PyYAML keeps one and says nothing. Mappings that are merged into one another (``<<``)
    take exponential time, and so does the hash of a key that is a list of lists.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML's. Raises ``yaml.constructor.ConstructorError`` for what is refused."""
        keys: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            problem = ""
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key is a list or a mapping"
            elif key.tag == "tag:yaml.org,2002:merge":
                problem = "mappings are merged (<<): write the keys out"
            elif (key.tag, key.value) in keys:
                problem = f"the key {key.value[:50]!r} stands twice"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            keys.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def yaml_text(path: Path) -> str:
    """The text of a file.

    Raises:
        YamlFileError: no such file, a folder or a pipe, one that is too large or nested too deeply, or another
            encoding than UTF-8.
    """
    try:
        if not path.is_file():
            raise YamlFileError("it is no file" if path.exists() else "there is no such file")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise YamlFileError(error.strerror or type(error).__name__) from error
    if len(content) > LARGEST:
        raise YamlFileError(f"it is larger than {LARGEST >> 10} KiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlFileError(f"it is not encoded as UTF-8 (byte {error.start}): save it as UTF-8") from error
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):  # PyYAML's time grows with the square of the depth
        depth = max(0, depth + (1 if bracket in "[{" else -1))
        if depth > _DEEPEST:
            raise YamlFileError("it is nested too deeply")
    return text


def plain_yaml(path: Path) -> Any:
    """What a file of YAML holds: mappings, lists, texts, numbers, booleans, dates, nulls.

    Raises:
        YamlFileError: see `yaml_text`; also no YAML, tags of objects, a key that stands twice, or nested too deeply.
    """
    text = yaml_text(path)
    try:
        return yaml.load(text, Loader=StrictLoader)
    except RecursionError as error:
        raise YamlFileError("it is nested too deeply") from error
    except ERRORS as error:
        raise YamlFileError(problem_of(error)) from error


def problem_of(error: Exception) -> str:
    """One line on what is wrong with a text, and where."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark is not None:
        return f"{' '.join(str(problem).split())} (line {mark.line + 1})"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
