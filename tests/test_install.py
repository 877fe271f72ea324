"""What `make install` puts beside the packages."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
FILE = ROOT / "scripts" / "jit_warning.pth"


def script(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def warned(lines: list[str]) -> list[str]:
    """What is shown of torch's warning and of one of ours, after Python ran such lines at its start."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        for line in lines:
            exec(line)
        torch.jit.script(script)
        warnings.warn_explicit("another", FutureWarning, "torch/jit/a.py", 1, module="torch.jit.a")
    return [str(warning.message).split(".  ")[0] for warning in shown if warning.category is FutureWarning]


def test_one_warning_is_silenced_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = FILE.read_text(encoding="utf8").splitlines()
    assert all(line.startswith(("#", "import ")) for line in lines)  # what `site` passes over, and what it runs
    monkeypatch.setattr(sys, "warnoptions", [])
    if len(warned([])) == 1:
        pytest.skip("this torch does not warn of torch.jit.script")
    assert warned(lines) == ["another"]
    monkeypatch.setattr(sys, "warnoptions", ["error::FutureWarning"])
    assert len(warned(lines)) > 1  # whoever wants to see them does


def test_make_copies_it() -> None:
    assert f"cp scripts/{FILE.name} " in (ROOT / "Makefile").read_text(encoding="utf8")
