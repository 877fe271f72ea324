"""Modules made one script: run by a browser's engine elsewhere; here what it is made of, and what is refused."""

from __future__ import annotations

import re

import pytest

from eugen_nerf.web.module_bundling import ModuleError, bundle_modules
from eugen_nerf.web.page import ENTRY, own_sources

ONE = 'import { two as other,\n  three } from "../b/two.js";\nexport const one = other() + three;\n'
TWO = 'import { three as t } from "./three.js";\nexport function two() {\n  return t;\n}\nexport const three = t;\n'
THREE = "export const three = 3;\n"


def test_modules_stand_after_what_they_import_and_once() -> None:
    sources = {"a/one.js": ONE, "b/two.js": TWO, "b/three.js": THREE, "b/unused.js": "export const x = 1;"}
    script = bundle_modules(sources, "a/one.js")
    assert re.findall(r'^modules\["(.+)"\] = ', script, re.MULTILINE) == ["b/three.js", "b/two.js", "a/one.js"]
    assert 'const { two: other, three } = modules["b/two.js"];' in script
    assert "return { two, three };" in script
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    assert script == bundle_modules(dict(reversed(sources.items())), "a/one.js")


def test_comments_are_left_out_and_tabs_indent() -> None:
    source = (
        "// what it is\nexport const one = 1; // of two\nconst text = `\n  // of a shader\n   fn f() {} // two\n`;\n"
        'const address = "a // b";\n'
    )
    script = bundle_modules({"one.js": source}, "one.js")
    assert 'const one = 1;\nconst text = `\n\t fn f() {}\n`;\nconst address = "a // b";' in script
    assert "what it is" not in script


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('import x from "./three.js";', "only named imports"),
        ('import * as x from "./three.js";', "only named imports"),
        ('import "./three.js";', "only named imports"),
        ("export default 3;", "only named imports"),
        ("export { a };", "only named imports"),
        ("export let a = 1;", "only named imports"),
        ('const x = import("./three.js");', "only named imports"),
        ('import { three as a as b } from "./three.js";', "three as a as b"),
        ('import { four } from "./three.js";', "four, which three.js does not export"),
        ('import { x } from "./four.js";', "there is no module four.js, which one.js imports"),
        ('import { x } from "../../three.js";', "there is no module"),
        ('import { one } from "./one.js";', "circle: one.js -> one.js"),
        ('const text = "</SCRIPT>";', "would end its script element"),
        ('const text = "<!--";', "would end its script element"),
    ],
)
def test_other_modules_are_refused(source: str, message: str) -> None:
    with pytest.raises(ModuleError, match=re.escape(message)):
        bundle_modules({"one.js": source, "three.js": THREE}, "one.js")


def test_a_circle_of_three_is_found() -> None:
    sources = {f"{a}.js": f'import {{ {b} }} from "./{b}.js";\nexport const {a} = 1;' for a, b in ("ab", "bc", "ca")}
    with pytest.raises(ModuleError, match=r"a\.js -> b\.js -> c\.js -> a\.js"):
        bundle_modules(sources, "a.js")


def test_the_page_s_own_script_is_small_and_evaluates_no_text() -> None:
    script = bundle_modules(own_sources(), ENTRY)
    assert len(script.encode()) <= 150_000
    for word in ("eval(", "new Function", "innerHTML", "outerHTML", "document.write", "insertAdjacentHTML", "http://"):
        assert word not in script.replace("http://localhost:8000", "")
