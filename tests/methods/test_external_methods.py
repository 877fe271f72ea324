"""nerfstudio's methods that are not installed: listed in a moment, and offered to who chooses one."""

from __future__ import annotations

import inspect

import pytest
from nerfstudio.configs import external_methods
from nerfstudio.configs.external_methods import ExternalMethodDummyTrainerConfig, get_external_methods

import eugen_nerf.methods.presets.static  # noqa: F401


def test_they_are_listed_without_the_sources_of_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "stack", lambda: pytest.fail("all loaded modules are looked through"))
    configs, descriptions = get_external_methods()
    assert configs.keys() == descriptions.keys() >= {"tetra-nerf", "splatfacto-w"}
    assert {type(config) for config in configs.values()} == {ExternalMethodDummyTrainerConfig}


def test_one_that_is_chosen_is_offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []
    monkeypatch.setattr(external_methods.Confirm, "ask", lambda question, **_: bool(asked.append(question)))
    method = get_external_methods()[0]["splatfacto-w"].method
    with pytest.raises(SystemExit) as ended:
        ExternalMethodDummyTrainerConfig(method_name="splatfacto-w", method=method)
    assert ended.value.code == 0
    assert "Would you like to run the install" in asked[0]
    assert "Splatfacto-W" in capsys.readouterr().out
