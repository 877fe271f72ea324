"""The page in a real browser, headless Chromium, behind a fake engine that paints gradients."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from pages import Opened, pair, pretended_field
from PIL import Image

Open = Callable[..., Opened]


def hash_of(tab: Opened) -> str:
    """The link that the page makes of what is shown now."""
    tab.button("Copy a link to this view").click()
    tab.page.wait_for_function("() => location.hash.length > 1")
    return tab.page.evaluate("location.hash")


def test_the_first_picture_is_the_first_test_view_and_grows_fine(show: Open) -> None:
    tab = show(pair())
    tab.still()
    last = tab.last
    assert last["mode"] == "split"
    assert [colour for colour, _ in last["fields"]] == ["#c33", "#36c"]
    assert {total for _, total in last["fields"]} == {sum(range(64))}, "the weights arrive as they were"
    assert last["camera"]["pose"] == [1, 0, 0, 0, 0, 0, -1, -3, 0, 1, 0, 0]
    box = tab.page.locator("#picture").bounding_box()
    assert (last["camera"]["width"], last["camera"]["height"]) == (box["width"], box["height"])
    # the photograph, 64 x 64, fits into the picture, in its middle
    scale = min(box["width"], box["height"]) / 64
    assert last["camera"]["fx"] == pytest.approx(80 * scale)
    assert last["camera"]["cx"] == pytest.approx(box["width"] / 2)
    sizes = tab.page.evaluate("window.fake.draws.map((draw) => draw.camera.width * draw.camera.height)")
    assert sizes[0] < sizes[-1]
    assert tab.page.locator("#picture canvas").count() == 1


def test_a_drag_orbits_and_is_coarse_while_it_moves(show: Open) -> None:
    tab = show(pair())
    tab.still()
    tab.page.evaluate("window.fake.nanoseconds = 400; window.fake.draws.length = 0")
    tab.drag(120, 40, steps=30)
    tab.still()
    draws = tab.page.evaluate("window.fake.draws")
    sizes = [draw["camera"]["width"] * draw["camera"]["height"] for draw in draws]
    # 400 ns a pixel: 30 frames a second leave about 80,000 pixels
    assert min(sizes) < 85_000
    assert sizes[-1] == max(sizes) > 200_000
    pose = np.array(tab.last["camera"]["pose"]).reshape(3, 4)
    np.testing.assert_allclose(pose[:, :3].T @ pose[:, :3], np.eye(3), atol=1e-6)
    assert np.linalg.norm(pose[:, 3]) == pytest.approx(3, abs=1e-5), "as far from the middle as before"
    assert pose[0, 3] < -0.5, "the hand turns the scene to the right, so the camera goes to its left"
    assert pose[2, 3] > 0.2
    assert tab.page.get_by_label("Test views").input_value() == ""


def test_keys_move_the_camera_without_a_click(show: Open) -> None:
    tab = show(pair())
    tab.still()
    start = np.array([0, -3, 0])
    far = np.linalg.norm
    for key, moved in {
        "w": lambda p: far(p) < 2.9,
        "s": lambda p: far(p) > 3.1,
        "d": lambda p: p[0] > 0.1 and p[1] == -3,
        "e": lambda p: p[2] > 0.1 and p[1] == -3,
        "+": lambda p: far(p) < 2.9,
        "ArrowLeft": lambda p: p[0] < -0.1 and abs(far(p) - 3) < 1e-5,
        "ArrowUp": lambda p: p[2] > 0.1 and abs(far(p) - 3) < 1e-5,
    }.items():
        tab.page.keyboard.press("Home")
        tab.still()
        np.testing.assert_array_equal(tab.place, start)
        tab.page.keyboard.press(key, delay=120)
        tab.still()
        assert moved(tab.place), (key, tab.place)
    tab.radio("Fly").focus()
    before = tab.place
    tab.page.keyboard.press("w", delay=120)
    tab.still()
    np.testing.assert_array_equal(tab.place, before, "keys belong to the control that has the focus")


def test_wheel_pan_and_fly(show: Open) -> None:
    tab = show([pretended_field("one")])
    tab.still()
    tab.page.mouse.move(150, 200)
    tab.page.mouse.wheel(0, 200)
    tab.still()
    assert tab.last["camera"]["pose"][7] < -3.2
    before = np.array(tab.last["camera"]["pose"]).reshape(3, 4)
    tab.drag(80, 0, button="right")
    tab.still()
    panned = np.array(tab.last["camera"]["pose"]).reshape(3, 4)
    np.testing.assert_array_equal(panned[:, :3], before[:, :3])
    assert panned[0, 3] < before[0, 3], "the scene follows the hand"
    tab.radio("Fly").click()
    tab.drag(80, 0)
    tab.still()
    flown = np.array(tab.last["camera"]["pose"]).reshape(3, 4)
    np.testing.assert_array_equal(flown[:, 3], panned[:, 3])
    assert flown[0, 2] > 0, "it looks to the left, as its back points to the right"


def test_two_fingers_pinch(show: Open) -> None:
    tab = show([pretended_field("one")], viewport={"width": 390, "height": 780}, has_touch=True)
    tab.still()
    touch = tab.page.context.new_cdp_session(tab.page)

    def fingers(kind: str, *at: tuple[int, int]) -> None:
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(at)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", (150, 300), (200, 300))
    for step in range(1, 6):
        fingers("touchMove", (150 - 10 * step, 300), (200 + 10 * step, 300))
    fingers("touchEnd")
    tab.still()
    pose = np.array(tab.last["camera"]["pose"]).reshape(3, 4)
    # 50 pixels apart at first, 150 at last
    assert pose[1, 3] == pytest.approx(-1, abs=0.05)
    np.testing.assert_allclose(pose[:, :3], [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-6)
    fingers("touchStart", (150, 300))
    fingers("touchMove", (190, 300))
    fingers("touchEnd")
    tab.still()
    assert tab.last["camera"]["pose"][3] < 0, "one finger turns"


def colours(tab: Opened) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(tab.page.locator("#picture canvas").screenshot())).convert("RGB")).astype(
        int
    )


def test_the_split_is_dragged_on_the_picture(show: Open) -> None:
    tab = show(pair())
    tab.still()
    line = tab.page.get_by_role("slider", name="Split between the two fields")
    box, stage = line.bounding_box(), tab.page.locator("#stage").bounding_box()
    middle = box["x"] + box["width"] / 2
    assert box["height"] == stage["height"]
    assert tab.page.evaluate("parseFloat(getComputedStyle(document.getElementById('split'), '::before').width)") == 1
    tab.page.mouse.move(middle, 100)
    tab.page.mouse.down()
    tab.page.mouse.move(middle + stage["width"] / 4, 120, steps=5)
    tab.page.mouse.up()
    tab.still()
    assert tab.last["split"] == pytest.approx(0.75, abs=0.01)
    edge = line.bounding_box()["x"] + (box["width"] - 1) / 2 - stage["x"]
    assert edge == round(edge), "on whole pixels"
    assert tab.last["split"] * stage["width"] == pytest.approx(edge, abs=1e-6)
    assert tab.page.get_by_label("Test views").input_value() == "0", "the camera stays"
    row = colours(tab)[90]
    assert row[int(edge) - 20][0] > row[int(edge) + 20][0] + 40
    line.focus()
    tab.page.keyboard.press("Home")
    tab.still()
    assert tab.last["split"] == 0
    assert line.get_attribute("aria-valuenow") == "0"


def test_fields_alone_and_their_difference(show: Open) -> None:
    tab = show(pair())
    tab.still()
    for label, mode, fields in (
        ("dense", "single", ["#c33"]),
        ("converted", "single", ["#36c"]),
        ("Difference", "difference", ["#c33", "#36c"]),
        ("Split", "split", ["#c33", "#36c"]),
    ):
        tab.radio(label).click()
        tab.still()
        assert (tab.last["mode"], [field[0] for field in tab.last["fields"]]) == (mode, fields)
        assert tab.page.locator("#split").is_visible() == (label == "Split")
        assert tab.page.locator("#legend").is_visible() == (label == "Difference")
        assert tab.radio(label).get_attribute("aria-checked") == "true"
    tab.radio("Split").focus()
    tab.page.keyboard.press("ArrowRight")
    tab.still()
    assert tab.last["mode"] == "single", "arrow keys go through the choices"


def test_one_field_has_nothing_to_compare(show: Open) -> None:
    tab = show([pretended_field("one")])
    tab.still()
    assert tab.last["mode"] == "single"
    assert not tab.page.locator("#compare").is_visible()
    assert not tab.page.locator("#timeline").is_visible()


def test_test_views_and_what_was_measured_there(show: Open) -> None:
    fields = pair()
    del fields[1].description["info"]["views"][2]["psnr"]
    tab = show(fields)
    tab.still()
    views = tab.page.get_by_label("Test views")
    assert tab.page.locator("#view-psnr").inner_text().split("\n") == [
        "PSNR, dense", "30.00 dB", "PSNR, converted", "30.00 dB"]  # fmt: skip
    tab.button("Next test view").click()
    tab.still()
    assert tab.last["camera"]["pose"][3] == 0.25
    views.select_option("2")
    tab.still()
    assert tab.last["camera"]["pose"][3] == 0.5
    assert tab.page.locator("#view-psnr").inner_text().split("\n") == ["PSNR, dense", "32.00 dB"]
    assert tab.page.get_by_role("status").inner_text() == "Test view 2, r_2.png"
    tab.page.keyboard.press("Tab")
    tab.button("Next test view").click()
    tab.still()
    assert tab.last["camera"]["pose"][3] == 0, "after the last one comes the first"


def test_time_is_chosen_and_played(show: Open) -> None:
    tab = show([pretended_field("moving", times=[0.0, 1.0])])
    tab.still()
    assert tab.last["time"] == 0
    tab.page.get_by_label("Time").fill("0.25")
    tab.still()
    assert tab.last["time"] == 0.25
    tab.button("Play").click()
    tab.page.wait_for_function("() => window.fake.draws.at(-1).time > 0.27")
    tab.button("Pause").click()
    tab.still()
    times = tab.page.evaluate("window.fake.draws.map((draw) => draw.time)")
    assert 0.27 < times[-1] < 1
    assert sorted(times) == times
    tab.page.get_by_label("Test views").select_option("1")
    tab.still()
    assert tab.last["time"] == 0.5, "a view has its time"


def test_shading_and_slices_of_a_signed_distance(show: Open) -> None:
    names = ["colour", "depth", "normals", "slice"]
    tab = show([pretended_field("room", kind="distance", shadings=names, box=[-2, -1, -1, 2, 3, 1])])
    tab.still()
    assert not tab.page.locator("#slice").is_visible()
    tab.radio("Normals").click()
    tab.still()
    assert tab.last["shading"] == "normals"
    tab.radio("Slice").click()
    tab.radio("y").click()
    tab.page.get_by_label("Offset").fill("0.75")
    tab.still()
    assert (tab.last["shading"], tab.last["slice"]) == ("slice", {"axis": 1, "offset": 2.0})
    assert tab.page.locator("#slice-value").inner_text() == "2.00"


def test_a_link_leads_back_to_the_view(show: Open) -> None:
    tab = show(pair(times=[0.0, 1.0]))
    tab.still()
    tab.drag(70, 30)
    tab.page.get_by_label("Time").fill("0.3")
    tab.radio("Depth").click()
    tab.still()
    pose, link = np.array(tab.last["camera"]["pose"]), hash_of(tab)
    assert re.fullmatch(r"#camera=[-\d.,]+&lens=0&split=0\.5&time=0\.3&shading=depth", link)
    again = show(pair(times=[0.0, 1.0]), after=link)
    again.still()
    np.testing.assert_allclose(again.last["camera"]["pose"], pose, atol=1e-5)
    assert (again.last["time"], again.last["shading"]) == (0.3, "depth")
    assert hash_of(again) == link
    again.page.evaluate("location.hash = '#view=2&mode=second'")
    again.still()
    assert again.last["camera"]["pose"][3] == 0.5
    assert again.last["mode"] == "single"
    assert again.last["shading"] == "colour"


GOOD = "camera=0,-3,0,1,0,0,0,3"


WRONG = (
    "camera=1,2,3", "camera=0,-3,0,1,0,0,0,3,4", "camera=NaN,-3,0,1,0,0,0,3", "camera=1e3,-3,0,1,0,0,0,3",
    "camera=9999999,-3,0,1,0,0,0,3", "camera=0,-3,0,1,1,1,1,3", "camera=0,-3,0,1,0,0,0,-3", f"{GOOD}&{GOOD}",
    f"{GOOD}&view=1", "view=3", "view=-1", "view=1.5", "mode=split", f"{GOOD}&mode=other", f"{GOOD}&split=2",
    f"{GOOD}&time=0.5", f"{GOOD}&constructor=1", f"{GOOD}&__proto__=1", f"{GOOD}&x=<img src=x>", "view=1=2",
    f"view=1&shading={'x' * 700}", f"{GOOD}&split=", f"{GOOD}&lens=7", "%00", "view", f"{GOOD}&shading=normals",
)  # fmt: skip


def test_other_links_are_read_as_none(show: Open) -> None:
    tab = show(pair())
    tab.still()
    before, status = tab.last["camera"]["pose"], tab.page.get_by_role("status")
    for link in WRONG:
        tab.page.evaluate(
            "(link) => { document.getElementById('status').textContent = ''; location.hash = link; }", link
        )
        status.filter(has_text="The link does not name a view of this scene").wait_for()
    tab.still()
    assert tab.last["camera"]["pose"] == before
    tab.page.evaluate("(link) => { location.hash = link; }", f"{GOOD}&mode=difference&split=0.25&lens=2")
    tab.still()
    assert (tab.last["mode"], tab.last["split"], list(tab.place)) == ("difference", 0.25, [0, -3, 0])


def test_a_window_that_changes_its_size(show: Open) -> None:
    tab = show(pair())
    tab.still()
    tab.page.set_viewport_size({"width": 500, "height": 700})
    tab.still()
    box = tab.page.locator("#picture").bounding_box()
    camera = tab.last["camera"]
    assert (camera["width"], camera["height"]) == (box["width"], box["height"])
    assert camera["fx"] == pytest.approx(80 * min(box["width"], box["height"]) / 64)
    tab.button("Controls").click()
    tab.still()
    assert tab.page.locator("#picture").bounding_box()["height"] != box["height"]


def test_a_picture_that_could_be_almost_whole_is_whole(show: Open) -> None:
    """What the time at rest allows is 96 % of the pixels: the rest would be missing for ever."""
    tab = show(pair())
    tab.still()
    box = tab.page.locator("#picture").bounding_box()
    tab.page.evaluate(f"() => {{ window.fake.nanoseconds = 900e6 / {0.96 * box['width'] * box['height']}; }}")
    tab.drag(30)
    tab.still()
    camera = tab.last["camera"]
    assert (camera["width"], camera["height"]) == (box["width"], box["height"])


def test_the_picture_is_saved_whole(show: Open) -> None:
    tab = show(pair(), title="Lego: a/b \u00fc <i>")
    tab.still()
    with tab.page.expect_download() as download:
        tab.button("Save the picture").click()
    assert download.value.suggested_filename == "Lego-a-b-u-i.png"
    image = np.asarray(Image.open(download.value.path()).convert("RGB"))
    box = tab.page.locator("#picture").bounding_box()
    assert image.shape[:2] == (box["height"], box["width"])
    assert np.abs(image.astype(int)[150] - colours(tab)[150])[:200].mean() < 1


def test_full_screen(show: Open) -> None:
    tab = show(pair())
    tab.still()
    tab.button("Full screen").click()
    tab.page.wait_for_function("() => document.fullscreenElement !== null")
