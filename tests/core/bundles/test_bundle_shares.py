"""Bundles of every width: a share is the network of the first features, and what is measured at it stays with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import KINDS, elastic, evaluate, make, with_scene

from eugen_nerf.core import BundledGraph, BundleError, ConfigError, load_bundle, save_bundle
from eugen_nerf.core.networks.feature_prefix import kept_features

pytest.importorskip("safetensors")
JSON, WEIGHTS = "bundle.json", "weights.safetensors"


def silence(network: BundledGraph, share: float) -> None:
    """Features beyond a share become zero, since their rows are: those of the tests are tanh and relu."""
    graph = network.graph
    outputs = {value for value, affine in graph.outputs if affine.weight is None}
    with torch.no_grad():
        for value, (stage, _) in enumerate(graph.steps, start=len(network.input_widths)):
            m = stage.num_features // stage.degree
            if stage.linear or value in outputs:
                continue
            kept = (torch.arange(m) < kept_features(m, share)).float().repeat(len(stage.weight) // m)
            stage.weight.mul_(kept[:, None])
            for column in (stage.bias, stage.norm):
                if column is not None:
                    column.mul_(kept)


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_is_the_field_whose_other_features_are_zero(kind: str, tmp_path: Path) -> None:
    save_bundle(elastic(kind), tmp_path / "bundle")
    read = load_bundle(tmp_path / "bundle")
    assert read.shares == (1.0, 0.5, 0.25)
    macs = []
    for share in read.shares:
        silent = with_scene(kind)
        for part in silent.modules():
            if isinstance(part, BundledGraph):
                silence(part, share)
        narrow = read.at_share(share)
        assert narrow.shares == ()
        for mine, theirs in zip(evaluate(narrow), evaluate(silent), strict=True):
            torch.testing.assert_close(mine, theirs)
        expected = silent.render(silent.cameras[1]).colour
        torch.testing.assert_close(narrow.render(narrow.cameras[1]).colour, expected, rtol=1e-4, atol=1e-4)
        macs.append(narrow.multiply_adds())
    assert macs[0] == read.multiply_adds() > macs[1] > macs[2]
    for mine, theirs in zip(evaluate(read), evaluate(with_scene(kind)), strict=True):
        assert torch.equal(mine, theirs), "all features by default, and a share changes nothing of the field"


def test_what_was_measured_stays_with_its_share() -> None:
    field = elastic("moving")
    assert field.scene is not None
    half, quarter = field.at_share(0.5).scene, field.at_share(0.25).scene
    assert half is not None
    assert quarter is not None
    assert (half.quality, quarter.quality) == (field.scene.share_quality[0.5], None)
    assert [view.psnr for view in half.views] == [None, None]
    assert field.at_share(1.0).scene.quality == field.scene.quality  # type: ignore[union-attr]
    assert [view.psnr for view in field.scene.views] == [31.0, 31.0]
    assert half.renderer is field.scene.renderer


def test_a_share_is_a_bundle_of_its_own(tmp_path: Path) -> None:
    narrow = elastic("pyramid").at_share(0.5)
    save_bundle(narrow, tmp_path / "half")
    text = (tmp_path / "half" / JSON).read_text()
    assert '"shares"' not in text
    assert "share_quality" not in text
    read = load_bundle(tmp_path / "half")
    assert torch.equal(read.render(read.cameras[0]).colour, narrow.render(narrow.cameras[0]).colour)
    assert read.multiply_adds() == narrow.multiply_adds()


def test_other_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^the bundle cannot be evaluated with 0.3 of .* at these: 1, 0.5, 0.25$"):
        elastic("frequency").at_share(0.3)
    with pytest.raises(ConfigError, match=r"trained with all of them alone$"):
        make("frequency").at_share(1.0)


def set_shares(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["field"]["network"].update(shares=value)


def set_quality(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["scene"]["share_quality"][0].update(values)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "empty": (set_shares([]), "a list of 2 to 16 entries"),
    "one": (set_shares([1.0]), "a list of 2 to 16 entries"),
    "many": (set_shares([1 - i / 100 for i in range(17)]), "a list of 2 to 16 entries"),
    "text": (set_shares("half"), "a list of 2 to 16 entries"),
    "texts": (set_shares([1, "half"]), "a number from"),
    "none": (set_shares([1.0, 0.0]), "a number from"),
    "huge": (set_shares([1.0, 1e300]), "a number from"),
    "up": (set_shares([1.0, 0.25, 0.5]), "they go from 1 downwards"),
    "twice": (set_shares([1.0, 0.5, 0.5]), "they go from 1 downwards"),
    "not all": (set_shares([0.5, 0.25]), "they go from 1 downwards"),
    "of one network": (set_shares([1.0, 0.75]), "has the shares"),
    "quality of another": (set_quality(share=0.75), "its networks have no such share"),
    "quality of all": (set_quality(share=1.0), "its networks have no such share"),
    "quality of a text": (set_quality(share="x"), "a number from 0 to 1"),
    "unknown": (set_quality(more=1), "entries that this version does not know"),
    "no number": (set_quality(psnr=None), "a number from"),
    "again": (lambda document: document["scene"].update(share_quality=document["scene"]["share_quality"] * 2), "again"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_files_of_other_shares_are_refused(name: str, tmp_path: Path) -> None:
    save_bundle(elastic("moving"), tmp_path / "bundle")
    change, words = CHANGES[name]
    document = json.loads((tmp_path / "bundle" / JSON).read_text())
    change(document)
    (tmp_path / "bundle" / JSON).write_text(json.dumps(document))
    with pytest.raises(BundleError, match=words) as caught:
        load_bundle(tmp_path / "bundle")
    assert "\n" not in str(caught.value)


def test_bundles_without_shares_are_as_before(tmp_path: Path) -> None:
    plain, wide = with_scene("moving"), elastic("moving")
    for name, field in (("plain", plain), ("wide", wide)):
        save_bundle(field, tmp_path / name)
    assert (tmp_path / "plain" / WEIGHTS).read_bytes() == (tmp_path / "wide" / WEIGHTS).read_bytes()
    text = (tmp_path / "plain" / JSON).read_text()
    assert "share_quality" not in text
    assert '"shares"' not in text
    assert load_bundle(tmp_path / "plain").shares == ()
