"""Names and texts that can be a file's: checked before anything is made."""

from __future__ import annotations

import os
import reprlib
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from eugen_nerf.core.errors import ConfigError

NAME_BYTES = 200
"""Most bytes of a name in UTF-8. File systems take 255; a temporary name has a process and a suffix more."""
_PART_BYTES, _PATH_BYTES = 255, 3800
"""Most bytes of a path between two separators and in all: a run's files lie some folders below its path."""


@dataclass(frozen=True)
class FileName:
    """Metadata of an annotation: the text is the name of one file or folder, in whatever folder it is put."""


NAME = FileName()


def shown(value: object) -> str:
    """A value as an error quotes it: one line of at most some 60 characters, in the spelling of YAML and JSON."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _SHORT.repr(value).encode("ascii", "backslashreplace").decode()


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 2, 4, 4, 3
        self.maxstring = self.maxother = 50

    def repr_int(self, value: int, level: int) -> str:
        try:
            return super().repr_int(value, level)
        except ValueError:  # more digits than Python writes
            return "an integer of thousands of digits"


_SHORT = _Short()


def text_problem(text: str) -> str | None:
    """Why a text cannot be printed, be an argument of a command, or be written to a file; None where it can."""
    if "\0" in text or any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" for c in text):
        return "it holds control characters"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it is no UTF-8"
    return None


def name_problem(name: str) -> str | None:
    """Why a text cannot be the name of one file or folder, whatever folder it is put in; None where it can."""
    if not name:
        return "it is empty"
    if problem := text_problem(name):
        return problem
    if name in (".", "..") or "/" in name or "\\" in name:
        return "it leads to another folder"
    if name != name.strip() or name.startswith("-"):
        return "it begins with a dash, or begins or ends with a space"
    if len(name.encode()) > NAME_BYTES:
        return f"it has {len(name.encode())} bytes of at most {NAME_BYTES}"
    return None


def check_name(name: object, what: str) -> None:
    """Refuses what cannot be the name of one file or folder.

    Args:
        name: as it was given.
        what: what it names, for the message, such as ``--timestamp``.

    Raises:
        ConfigError: it is no text, climbs, holds separators or control characters, is empty or too long.
    """
    problem = name_problem(name) if isinstance(name, str) else "it is no text"
    if problem:
        raise ConfigError(
            f"{what} {shown(name)} cannot name a folder: {problem}; take letters, digits, dots and dashes"
        )


def check_path_text(path: Path, what: str) -> None:
    """Refuses a path that no file system takes, before anything is looked for there.

    Raises:
        ConfigError: control characters, no UTF-8, or too long.
    """
    text = str(path)
    problem = text_problem(text)
    if problem is None:
        longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
        if longest > _PART_BYTES or len(os.fsencode(text)) > _PATH_BYTES:
            problem = f"a name has at most {_PART_BYTES} bytes, and a path {_PATH_BYTES}"
    if problem:
        raise ConfigError(f"{what} {shown(text)} cannot be a path: {problem}")


def check_texts(settings: Any) -> None:
    """Refuses the first text or path of a dataclass, or of one nested in it, that cannot be what its setting says.

    Texts whose annotation has a `FileName` must be names; all are free of control characters.

    Raises:
        ConfigError: names the option, what was given and why it cannot be.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for own in fields(settings):
        value, hint = getattr(settings, own.name), hints[own.name]
        option = f"--{own.name.replace('_', '-')}"
        if is_dataclass(value) and not isinstance(value, type):
            check_texts(value)
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, Path):
                check_path_text(each, option)
            elif isinstance(each, str) and is_name(hint):
                check_name(each, option)
            elif isinstance(each, str) and (problem := text_problem(each)):
                raise ConfigError(f"{option} {shown(each)} cannot be read: {problem}")


def is_name(hint: Any) -> bool:
    """Whether an annotation says that its texts are names; also inside of an optional or of a tuple."""
    if get_origin(hint) is Annotated and any(isinstance(each, FileName) for each in hint.__metadata__):
        return True
    return any(is_name(each) for each in get_args(hint) if get_origin(each) is not None)
