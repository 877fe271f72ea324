"""The width of a field on a page: a slider over the shares of its features, by mouse, keyboard and link."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from pages import Opened, pair, pretended_field

from eugen_nerf.web.page import PageField

Open = Callable[..., Opened]
SHARES: list[dict[str, Any]] = [
    {"share": 1.0, "macs": 11456, "quality": {"exact_psnr": 31.0, "psnr": 30.98}},
    {"share": 0.5, "macs": 4321, "quality": {"exact_psnr": 29.0, "psnr": 28.75}},
    {"share": 1 / 3, "macs": 2345, "quality": None},
]


def elastic(name: str = "one", colour: str = "#c00") -> PageField:
    return pretended_field(name, colour, shares=SHARES)


def numbers_of(tab: Opened) -> list[list[str]]:
    """The table of the fields, row by row."""
    rows = tab.page.locator("#fields tbody tr").all()
    return [row.inner_text().split("\t") for row in rows]


def test_a_slider_chooses_a_share_and_numbers_follow(show: Open) -> None:
    tab = show([elastic()])
    tab.still()
    slider = tab.page.get_by_role("slider", name="Features", exact=True)
    assert slider.get_attribute("aria-valuetext") == "100 % of the features"
    assert tab.last["shares"] == [0]
    assert ["multiply-adds a query", "11,456"] in numbers_of(tab)
    assert ["PSNR, training", "30.98 dB"] in numbers_of(tab)
    assert tab.page.locator("#view-psnr").inner_text() == "PSNR to the photograph\n30.00 dB"
    pose = tab.last["camera"]["pose"]
    tab.page.evaluate("window.fake.draws.length = 0")
    slider.focus()
    tab.page.keyboard.press("ArrowLeft")
    tab.still()
    draws = tab.page.evaluate("window.fake.draws")
    assert {tuple(draw["shares"]) for draw in draws} == {(1,)}
    assert draws[-1]["camera"]["pose"] == pose
    assert slider.get_attribute("aria-valuetext") == "50 % of the features"
    assert tab.page.locator("#width-rows output").inner_text() == "50 %"
    assert ["multiply-adds a query", "4,321"] in numbers_of(tab)
    assert ["PSNR, training", "28.75 dB"] in numbers_of(tab)
    assert tab.page.locator("#view-psnr").inner_text() == "", "views were measured with all features"
    assert tab.page.get_by_label("Test views").input_value() == "0", "the camera stays"
    tab.page.keyboard.press("Home")
    tab.still()
    assert tab.last["shares"] == [2]
    assert slider.get_attribute("aria-valuetext") == "33.3 % of the features"
    assert ["multiply-adds a query", "2,345"] in numbers_of(tab)
    assert not [row for row in numbers_of(tab) if row[0] == "PSNR, training"], "nothing was measured"
    tab.page.keyboard.press("End")
    tab.still()
    assert tab.last["shares"] == [0]
    assert ["multiply-adds a query", "11,456"] in numbers_of(tab)


def test_each_field_has_its_own_width(show: Open) -> None:
    tab = show([elastic("left", "#c33"), elastic("right", "#36c")])
    tab.still()
    tab.page.get_by_role("slider", name="Features of right").fill("0")
    tab.still()
    assert tab.last["shares"] == [0, 2]
    assert ["multiply-adds a query", "11,456", "2,345"] in numbers_of(tab)
    assert ["PSNR, training", "30.98 dB", "-"] in numbers_of(tab)
    assert tab.page.locator("#view-psnr").inner_text() == "PSNR, left\n30.00 dB"
    tab.radio("right").click()
    tab.still()
    assert (tab.last["fields"][0][0], tab.last["shares"]) == ("#36c", [2])


def test_fields_of_one_width_have_no_slider(show: Open) -> None:
    tab = show(pair())
    tab.still()
    assert not tab.page.locator("#widths").is_visible()
    assert tab.page.evaluate("window.fake.prepared") == []
    both = show([pretended_field("plain", "#c33"), elastic("wide", "#36c")])
    both.still()
    assert both.page.locator("#width-rows input").count() == 1
    both.page.get_by_role("slider", name="Features of wide").press("ArrowLeft")
    both.still()
    assert both.last["shares"] == [0, 1]


def test_other_widths_are_compiled_once_there_is_a_picture(show: Open) -> None:
    tab = show([elastic("left", "#c33"), elastic("right", "#36c")])
    tab.still()
    wanted = [[colour, share] for colour in ("#c33", "#36c") for share in (1, 2)]
    tab.page.wait_for_function("() => window.fake.prepared.length >= 4")
    assert tab.page.evaluate("window.fake.prepared") == wanted


def test_the_last_choice_is_shown_and_the_picture_stays_meanwhile(show: Open) -> None:
    tab = show([elastic()])
    tab.still()
    tab.page.evaluate("() => { window.fake.compiling = new Promise((done) => (window.fake.go = done)); }")
    slider = tab.page.get_by_role("slider", name="Features", exact=True)
    slider.fill("1")
    slider.fill("0")
    tab.page.evaluate("window.fake.draws.length = 0")
    tab.drag(40)
    tab.page.wait_for_function("() => window.fake.draws.length > 3")
    assert {tuple(draw["shares"]) for draw in tab.page.evaluate("window.fake.draws")} == {(0,)}
    assert slider.get_attribute("aria-valuetext") == "33.3 % of the features"
    tab.page.evaluate("() => { window.fake.draws.length = 0; window.fake.go(); }")
    tab.still()
    assert {tuple(draw["shares"]) for draw in tab.page.evaluate("window.fake.draws")} <= {(0,), (2,)}
    assert tab.last["shares"] == [2]


def fly(tab: Opened, pictures: int) -> list[dict[str, Any]]:
    """What was drawn while a key that turns the camera was held down."""
    tab.page.evaluate("window.fake.draws.length = 0")
    tab.page.locator("#picture").focus()
    tab.page.keyboard.down("ArrowRight")
    tab.page.wait_for_function(f"() => window.fake.draws.length >= {pictures}")
    drawn: list[dict[str, Any]] = tab.page.evaluate("window.fake.draws")
    return drawn


def test_a_slow_gpu_moves_with_fewer_features_and_rests_with_those_chosen(show: Open) -> None:
    tab = show([elastic()])
    tab.still()
    full = tab.last["camera"]["width"] * tab.last["camera"]["height"]
    tab.page.wait_for_function("() => window.fake.prepared.length >= 2")
    assert {tuple(draw["shares"]) for draw in fly(tab, 20)} == {(0,)}, "it is fast enough"
    tab.page.keyboard.up("ArrowRight")
    tab.still()
    # all features leave a thirtieth of the pixels in the time of a frame, the next width a twelfth
    tab.page.evaluate(f"window.fake.nanoseconds = 27e6 * 30 / {full}")
    assert [draw["shares"][0] for draw in fly(tab, 40)][-10:] == [1] * 10
    assert tab.page.locator("#corner").inner_text().endswith("fewer features")
    tab.page.evaluate("window.fake.nanoseconds *= 5")
    assert [draw["shares"][0] for draw in fly(tab, 40)][-10:] == [2] * 10
    tab.page.keyboard.up("ArrowRight")
    tab.still()
    assert tab.last["shares"] == [0]
    assert "features" not in tab.page.locator("#corner").inner_text()
    tab.page.evaluate("window.fake.nanoseconds = 50")
    assert [draw["shares"][0] for draw in fly(tab, 40)][-10:] == [0] * 10, "the width comes back"
    tab.page.keyboard.up("ArrowRight")


def test_a_width_is_moved_with_once_it_is_compiled_and_is_no_sudden_load(show: Open) -> None:
    tab = show([elastic()])
    # before the page opens, or it may have compiled all widths by then
    tab.page.add_init_script("window.compiling = new Promise((done) => (window.go = done))")
    tab.page.reload()
    tab.still()
    tab.page.evaluate("window.fake.nanoseconds = 20000")
    tab.still()
    assert {tuple(draw["shares"]) for draw in fly(tab, 20)} == {(0,)}
    tab.page.evaluate("""() => {
      window.fake.draws.splice(0, window.fake.draws.length - 1);
      window.go();
    }""")
    tab.page.wait_for_function("() => window.fake.draws.length >= 20")
    draws = tab.page.evaluate("window.fake.draws")
    assert draws[-1]["shares"] == [2]
    pixels = [draw["camera"]["width"] * draw["camera"]["height"] for draw in draws]
    assert all(after <= 1.4 * before for before, after in pairwise(pixels))
    tab.page.keyboard.up("ArrowRight")


def test_a_link_names_the_widths(show: Open) -> None:
    tab = show([elastic("left", "#c33"), elastic("right", "#36c")])
    tab.still()
    tab.button("Copy a link to this view").click()
    tab.page.wait_for_function("() => location.hash.length > 1")
    assert "features" not in tab.page.evaluate("location.hash")
    tab.page.get_by_role("slider", name="Features of right").fill("0")
    tab.still()
    tab.button("Copy a link to this view").click()
    tab.page.wait_for_function("() => location.hash.includes('features')")
    link = tab.page.evaluate("location.hash")
    assert link.endswith("&features=1,0.333333")
    again = show([elastic("left", "#c33"), elastic("right", "#36c")], after=link)
    again.still()
    assert again.last["shares"] == [0, 2]
    assert again.page.get_by_role("slider", name="Features of right").input_value() == "0"
    again.page.evaluate("location.hash = '#view=1'")
    again.still()
    assert again.last["shares"] == [0, 0]


@pytest.mark.parametrize("value", ["0.5", "1,0.4", "1,0.5,0.5", "1,", "1,x", "1,-1", "<img>,1", "1,1e0"])
def test_other_widths_in_a_link_are_refused(show: Open, value: str) -> None:
    tab = show([elastic("left", "#c33"), elastic("right", "#36c")])
    tab.still()
    tab.page.evaluate("(link) => { location.hash = link; }", f"view=1&features={value}")
    tab.page.get_by_role("status").filter(has_text="The link does not name a view of this scene").wait_for()
    tab.still()
    assert tab.last["shares"] == [0, 0]


def test_widths_stay_when_the_gpu_was_lost(show: Open) -> None:
    tab = show([elastic()])
    tab.still()
    tab.page.get_by_role("slider", name="Features", exact=True).fill("1")
    tab.still()
    tab.page.evaluate("window.fake.lose('gone')")
    tab.page.wait_for_function("() => window.fake.opened === 2")
    tab.still()
    assert tab.last["shares"] == [1]
