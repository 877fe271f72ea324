"""JavaScript modules as one script: each in a function of its own, in the order of their imports.

A page of one file cannot import, and its security policy names each script by a hash. The modules use a small part of
the language's module syntax, and anything else is refused: named imports at the top level, and `export` before a
function, class or constant. Comments stay in this package, and a tab stands for two spaces of
indentation: shaders are most of the script, and their lines, inside template literals, are deeply indented.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

_IMPORT = re.compile(r'^import\s*\{([^{}]*)\}\s*from\s*"([^"\n]+)";', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async function|function|class|const) (\w+))", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*//.*\n", re.MULTILINE)
# behind code, and without a quotation mark: what has one may be a string with two slashes in it
_REMARK = re.compile(r"[ \t]+// [^\"'`\n]*$", re.MULTILINE)
_INDENT = re.compile(r"^(?:  )+", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*|.*\bimport\s*\(.*", re.MULTILINE)
_NAME = re.compile(r"(\w+)(?:\s+as\s+(\w+))?")


class ModuleError(ValueError):
    """Modules that cannot be made one script: a mistake in this package's own sources."""


def bundle_modules(sources: Mapping[str, str], entry: str) -> str:
    """One script that does what importing the entry does.

    Args:
        sources: text by path, such as ``page/main.js``.
        entry: path of the module that imports the others, directly or not; what nobody imports is left out.

    Returns:
        A script in strict mode that defines no global name.

    Raises:
        ModuleError: a module that is not there, imports in a circle, another syntax of imports or exports, or a text
            that would end the script element it stands in.
    """
    parts = ['"use strict";', "{", "const modules = {};"]
    for path in _in_order(sources, entry, ()):
        parts.append(f"// {path}\nmodules[{_quoted(path)}] = (() => {{\n{_as_function(sources, path)}\n}})();")
    return "\n".join([*parts, "}"])


def _in_order(sources: Mapping[str, str], path: str, above: tuple[str, ...]) -> list[str]:
    """A module after all that it imports, each once."""
    if path in above:
        raise ModuleError(f"modules import in a circle: {' -> '.join([*above, path])}")
    if path not in sources:
        raise ModuleError(f"there is no module {path}, which {above[-1] if above else 'the page'} imports")
    order: list[str] = []
    for other, _ in _imports(path, sources[path]):
        order += [each for each in _in_order(sources, other, (*above, path)) if each not in order]
    return [*order, path]


def _imports(path: str, source: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """What a module imports: from where, and the names there and here."""
    for found in _IMPORT.finditer(source):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(path), found[2])), _names(path, found[1])


def _names(path: str, text: str) -> list[tuple[str, str]]:
    names = []
    for part in filter(None, map(str.strip, text.split(","))):
        match = _NAME.fullmatch(part)
        if match is None:
            raise ModuleError(f"{path} imports {part!r}: only names, and `name as other`")
        names.append((match[1], match[2] or match[1]))
    return names


def _as_function(sources: Mapping[str, str], path: str) -> str:
    """The body of a function that returns what the module exports."""
    source = _INDENT.sub(lambda found: "\t" * (len(found[0]) // 2), _REMARK.sub("", _COMMENT.sub("", sources[path])))
    if "</script" in source.lower() or "<!--" in source:
        raise ModuleError(f"{path} holds a text that would end its script element")
    exported = _EXPORT.findall(source)
    body = _EXPORT.sub("", source)
    for other, names in _imports(path, source):
        known = set(_EXPORT.findall(sources[other]))
        if unknown := [name for name, _ in names if name not in known]:
            raise ModuleError(f"{path} imports {unknown[0]}, which {other} does not export")
    body = _IMPORT.sub(lambda found: _destructured(path, found), body)
    if other_form := _OTHER.search(body):
        raise ModuleError(f"{path} has {other_form[0].strip()[:60]!r}: only named imports and exports of declarations")
    return f"{body.strip()}\nreturn {{ {', '.join(exported)} }};"


def _destructured(path: str, found: re.Match[str]) -> str:
    other = posixpath.normpath(posixpath.join(posixpath.dirname(path), found[2]))
    names = ", ".join(there if there == here else f"{there}: {here}" for there, here in _names(path, found[1]))
    return f"const {{ {names} }} = modules[{_quoted(other)}];"


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
