"""The public face of core: short, loaded late, with an example for each name that runs."""

import ast
import doctest
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import eugen_nerf.core
from eugen_nerf.core import api
from eugen_nerf.core.moved_names import MOVED

ROOT = Path(__file__).resolve().parents[2]
MAX_NAMES = 48
"""More than that is no longer a face."""


def test_the_public_names_are_few_and_in_named_groups() -> None:
    assert len(api.__all__) == len(set(api.__all__)) <= MAX_NAMES
    lines = Path(api.__file__).read_text().split("__all__ = [")[1].splitlines()[1:]
    assert lines[0].strip().startswith("# ")
    groups = [line.strip() for line in lines if line.strip().startswith("#")]
    assert len(groups) == len(set(groups)) == 9


def test_all_that_is_imported_for_the_api_is_public() -> None:
    tree = ast.parse(Path(api.__file__).read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(api.__all__) == set(dir(eugen_nerf.core))


@pytest.mark.parametrize("name", api.__all__)
def test_every_public_name_has_an_example_that_runs(name: str) -> None:
    value = getattr(eugen_nerf.core, name)
    tests = doctest.DocTestFinder().find(value, name, module=inspect.getmodule(value), globs={})
    assert any(test.name == name and test.examples for test in tests), f"{name} has no example in its docstring"
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for test in tests:
            runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("name", MOVED)
def test_names_that_moved_still_work_and_warn_where_they_are_now(name: str) -> None:
    module = f"eugen_nerf.core.{MOVED[name]}"
    with pytest.warns(DeprecationWarning, match=f"{name} .* import it from {module}") as caught:
        value = getattr(eugen_nerf.core, name)
    assert value is getattr(import_module(module), name)
    assert name not in api.__all__
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["EUGenLayer", "_private", "annotations"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(AttributeError, match=f"'eugen_nerf.core' has no attribute '{name}'"):
        getattr(eugen_nerf.core, name)


def test_core_loads_torch_with_the_first_public_name_and_not_before() -> None:
    code = (
        "import sys, eugen_nerf.core\n"
        "from eugen_nerf.core.errors import ConfigError\n"
        "print('torch' in sys.modules)\n"
        "from eugen_nerf.core import EUGenLinear\n"
        "print('torch' in sys.modules, EUGenLinear.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "EUGenLinear"]
