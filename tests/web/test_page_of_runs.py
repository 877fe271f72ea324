"""Pages of runs and bundles: what stands in them, and that commands, viewer and suites write the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_page import Elements

from eugen_nerf.cli.view import ViewCommand
from eugen_nerf.cli.web import WebCommand
from eugen_nerf.conversion.page_export import field_at, page_of
from eugen_nerf.core import load_bundle
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_viewer.page_saving import save_web_page
from eugen_viewer.shown_runs import ShownRun, open_run

BUNDLE = Path(__file__).resolve().parents[1] / "golden" / "bundles" / "rendered"


def data_of(page: Path) -> dict:
    return json.loads(Elements(page.read_text(encoding="utf8")).texts["page-data"])


def test_a_bundle_s_page_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "page.html"
    WebCommand(output=place, inputs=(BUNDLE,), names=("<b>",), title="T").run()
    printed = " ".join(capsys.readouterr().out.split())
    field, data = load_bundle(BUNDLE), data_of(place)
    assert f"{field.multiply_adds():,} multiply-adds a query" in printed
    assert f"page written: {place}" in printed
    assert [each["name"] for each in data["fields"]] == ["<b>"]
    info = data["fields"][0]["description"]["info"]
    assert [view["name"] for view in info["views"]] == [view.name for view in field.scene.views]
    assert info["macs"] == field.multiply_adds()
    assert [view.get("psnr") for view in info["views"]] == [view.psnr for view in field.scene.views]
    with pytest.raises(RunError, match="exists"):
        WebCommand(output=place, inputs=(BUNDLE,)).run()
    WebCommand(output=place, inputs=(BUNDLE, BUNDLE), names=("a", "b"), overwrite=True).run()
    assert [each["name"] for each in data_of(place)["fields"]] == ["a", "b"]
    assert data_of(place)["title"] == "a and b"


def test_a_run_s_page_has_what_its_test_views_score(tiny_dense_run: Path, tmp_path: Path) -> None:
    field = field_at(tiny_dense_run, device="cpu")
    scores = [view.psnr for view in field.scene.views]
    assert all(score is not None for score in scores)
    page, _ = page_of([("run", field)], "t")
    (tmp_path / "page.html").write_text(page.html, encoding="utf8")
    views = data_of(tmp_path / "page.html")["fields"][0]["description"]["info"]["views"]
    assert [view["psnr"] for view in views] == scores


def test_a_run_is_given_by_its_config_or_by_its_folder(tmp_path: Path) -> None:
    config = tmp_path / "run" / "config.yml"
    config.parent.mkdir()
    config.write_text("!!python/object:nerfstudio.engine.trainer.TrainerConfig\n", encoding="utf8")
    for path in (config, config.parent):
        assert WebCommand(output=tmp_path / "a.html", inputs=(path, BUNDLE))._checked_paths() == [config, BUNDLE]
    with pytest.raises(RunError, match="neither"):
        WebCommand(output=tmp_path / "a.html", inputs=(tmp_path,))._checked_paths()


def test_eugen_view_writes_the_page_that_eugen_web_writes(tmp_path: Path) -> None:
    ViewCommand(bundles=(BUNDLE,), save_page=tmp_path / "a.html", names=("n",), output=tmp_path / "out").run()
    WebCommand(inputs=(BUNDLE,), output=tmp_path / "b.html", names=("n",)).run()
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    again = ViewCommand(bundles=(BUNDLE,), save_page=tmp_path / "a.html", output=tmp_path / "out")
    with pytest.raises(RunError, match=r"choose another --save-page, or pass --overwrite to replace it$"):
        again.run()
    replace(again, overwrite=True, names=("m",)).run()
    assert [each["name"] for each in data_of(tmp_path / "a.html")["fields"]] == ["m"]


@pytest.mark.parametrize("changed", [{"scale": 1.01}, {"transform": (0.0, 1.0, 0.0, 0.0, -1.0, *[0.0] * 5, 1.0, 0.0)}])
def test_fields_of_other_coordinates_are_not_shown_together(changed: dict) -> None:
    first, second = load_bundle(BUNDLE), load_bundle(BUNDLE)
    second.scene.coordinates = replace(second.scene.coordinates, **changed)
    with pytest.raises(ConfigError, match=r"one and other place the scene differently, .* write a page of each"):
        page_of([("one", first), ("other", second)], "t")
    page_of([("other", second)], "t")


def test_the_viewer_saves_what_it_shows_but_no_preview(tiny_dense_run: Path, tmp_path: Path) -> None:
    run = open_run(tiny_dense_run, "dense </script>", device="cpu", data=None)
    again = open_run(tiny_dense_run, "again", device="cpu", data=None)
    bundle = open_run(BUNDLE, "bundle", device="cpu", data=None)
    said: list[str] = []
    size = save_web_page([run, again], tmp_path / "page.html", lambda share, what: said.append(what))
    assert size == (tmp_path / "page.html").stat().st_size
    assert [each["name"] for each in data_of(tmp_path / "page.html")["fields"]] == ["dense </script>", "again"]
    assert said == ["preparing dense </script>", "preparing again", "making the page"]
    preview = ShownRun("dense (preview)", run.run, bundle.model)
    with pytest.raises(ConfigError, match="save it as a run first"):
        save_web_page([run, preview], tmp_path / "other.html", lambda share, what: None)
    assert not (tmp_path / "other.html").exists()
