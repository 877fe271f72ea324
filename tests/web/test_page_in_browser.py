"""The page in a real browser, headless Chromium, behind a fake engine that paints gradients."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed_browser import NO_CHROMIUM, NO_PLAYWRIGHT, chromium
from pages import Opened, a_browser, pair, pretended_field, written
from PIL import Image

pytest.importorskip("playwright.sync_api", reason=NO_PLAYWRIGHT)
if chromium() is None:
    pytest.skip(NO_CHROMIUM, allow_module_level=True)

Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with a_browser() as browser:
        yield browser


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a page of some fields; at the end, it requested nothing and complained about nothing."""
    tabs: list[Opened] = []

    def opened(fields: list[Any], after: str = "", title: str = "A scene", **options: Any) -> Opened:
        path = tmp_path / f"page-{len(tabs)}.html"
        tab = Opened(browser, written(fields, path, title).as_uri() + after, **options)
        tabs.append(tab)
        return tab

    yield opened
    for tab in tabs:
        assert tab.errors == []
        assert {url for url in tab.requests if not url.startswith(("data:", "blob:"))} <= {tab.page.url.split("#")[0]}
        tab.page.close()


def button(tab: Opened, name: str) -> Any:
    return tab.page.get_by_role("button", name=name, exact=True)


def radio(tab: Opened, name: str) -> Any:
    return tab.page.get_by_role("radio", name=name, exact=True)


def place(tab: Opened) -> np.ndarray:
    """Where the camera of the last picture is."""
    return np.array(tab.last["camera"]["pose"]).reshape(3, 4)[:, 3]


def hash_of(tab: Opened) -> str:
    """The link that the page makes of what is shown now."""
    button(tab, "Copy a link to this view").click()
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
        np.testing.assert_array_equal(place(tab), start)
        tab.page.keyboard.press(key, delay=120)
        tab.still()
        assert moved(place(tab)), (key, place(tab))
    radio(tab, "Fly").focus()
    before = place(tab)
    tab.page.keyboard.press("w", delay=120)
    tab.still()
    np.testing.assert_array_equal(place(tab), before, "keys belong to the control that has the focus")


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
    radio(tab, "Fly").click()
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
        radio(tab, label).click()
        tab.still()
        assert (tab.last["mode"], [field[0] for field in tab.last["fields"]]) == (mode, fields)
        assert tab.page.locator("#split").is_visible() == (label == "Split")
        assert tab.page.locator("#legend").is_visible() == (label == "Difference")
        assert radio(tab, label).get_attribute("aria-checked") == "true"
    radio(tab, "Split").focus()
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
    button(tab, "Next test view").click()
    tab.still()
    assert tab.last["camera"]["pose"][3] == 0.25
    views.select_option("2")
    tab.still()
    assert tab.last["camera"]["pose"][3] == 0.5
    assert tab.page.locator("#view-psnr").inner_text().split("\n") == ["PSNR, dense", "32.00 dB"]
    assert tab.page.get_by_role("status").inner_text() == "Test view 2, r_2.png"
    tab.page.keyboard.press("Tab")
    button(tab, "Next test view").click()
    tab.still()
    assert tab.last["camera"]["pose"][3] == 0, "after the last one comes the first"


def test_time_is_chosen_and_played(show: Open) -> None:
    tab = show([pretended_field("moving", times=[0.0, 1.0])])
    tab.still()
    assert tab.last["time"] == 0
    tab.page.get_by_label("Time").fill("0.25")
    tab.still()
    assert tab.last["time"] == 0.25
    button(tab, "Play").click()
    tab.page.wait_for_function("() => window.fake.draws.at(-1).time > 0.27")
    button(tab, "Pause").click()
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
    radio(tab, "Normals").click()
    tab.still()
    assert tab.last["shading"] == "normals"
    radio(tab, "Slice").click()
    radio(tab, "y").click()
    tab.page.get_by_label("Offset").fill("0.75")
    tab.still()
    assert (tab.last["shading"], tab.last["slice"]) == ("slice", {"axis": 1, "offset": 2.0})
    assert tab.page.locator("#slice-value").inner_text() == "2.00"


def test_a_link_leads_back_to_the_view(show: Open) -> None:
    tab = show(pair(times=[0.0, 1.0]))
    tab.still()
    tab.drag(70, 30)
    tab.page.get_by_label("Time").fill("0.3")
    radio(tab, "Depth").click()
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
    assert (tab.last["mode"], tab.last["split"], list(place(tab))) == ("difference", 0.25, [0, -3, 0])


def test_a_window_that_changes_its_size(show: Open) -> None:
    tab = show(pair())
    tab.still()
    tab.page.set_viewport_size({"width": 500, "height": 700})
    tab.still()
    box = tab.page.locator("#picture").bounding_box()
    camera = tab.last["camera"]
    assert (camera["width"], camera["height"]) == (box["width"], box["height"])
    assert camera["fx"] == pytest.approx(80 * min(box["width"], box["height"]) / 64)
    button(tab, "Controls").click()
    tab.still()
    assert tab.page.locator("#picture").bounding_box()["height"] != box["height"]


def test_the_picture_is_saved_whole(show: Open) -> None:
    tab = show(pair(), title="Lego: a/b \u00fc <i>")
    tab.still()
    with tab.page.expect_download() as download:
        button(tab, "Save the picture").click()
    assert download.value.suggested_filename == "Lego-a-b-u-i.png"
    image = np.asarray(Image.open(download.value.path()).convert("RGB"))
    box = tab.page.locator("#picture").bounding_box()
    assert image.shape[:2] == (box["height"], box["width"])
    assert np.abs(image.astype(int)[150] - colours(tab)[150])[:200].mean() < 1


def test_full_screen(show: Open) -> None:
    tab = show(pair())
    tab.still()
    button(tab, "Full screen").click()
    tab.page.wait_for_function("() => document.fullscreenElement !== null")


def test_a_lost_gpu_is_opened_again_and_then_left_to_the_reader(show: Open) -> None:
    tab = show(pair())
    tab.still()
    tab.drag(60)
    tab.still()
    pose = tab.last["camera"]["pose"]
    for opened in (2, 3):
        tab.page.evaluate("window.fake.draws.length = 0; window.fake.lose('a test')")
        tab.page.wait_for_function(f"() => window.fake.opened === {opened} && window.fake.draws.length > 0")
        tab.still()
        assert tab.last["camera"]["pose"] == pose
        assert tab.page.locator("#picture canvas").count() == 1
    tab.page.evaluate("window.fake.lose('a test')")
    notice = tab.page.get_by_role("alert")
    notice.wait_for()
    assert notice.inner_text().splitlines()[:1] == ["The GPU stopped"]
    tab.page.evaluate("window.fake.draws.length = 0")
    button(tab, "Try again").click()
    tab.still()
    assert not notice.is_visible()


def test_a_picture_that_fails_says_why(show: Open) -> None:
    tab = show(pair())
    tab.still()
    tab.page.evaluate("window.fake.fail = 'this one fails'")
    tab.drag(60)
    tab.page.get_by_role("alert").wait_for()
    assert "this one fails" in tab.page.get_by_role("alert").inner_text()
    tab.page.evaluate("window.fake.fail = null; window.fake.draws.length = 0")
    button(tab, "Try again").click()
    tab.still()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no-webgpu", ("This browser has no WebGPU", "Chrome or Edge 113 or later", "Safari 26", "Firefox 141")),
        ("no-adapter", ("No GPU to render with", "hardware acceleration")),
        ("limits", ("Too large for this GPU", "limits is what the test wants")),
    ],
)
def test_what_is_missing_is_said(show: Open, kind: str, words: tuple[str, ...]) -> None:
    tab = show(pair(), after=f"?fail={kind}")
    notice = tab.page.get_by_role("alert")
    notice.wait_for()
    text = notice.inner_text()
    assert all(word in text for word in words), text
    assert not tab.page.locator("#panel").is_visible()
    assert button(tab, "Try again").is_visible() == (kind == "no-adapter")


HOSTILE = "</script><script>window.hostile = 1</script><img src=x onerror='window.hostile = 2'>"


def test_names_of_runs_are_text(show: Open) -> None:
    fields = [pretended_field(HOSTILE), pretended_field(f"{HOSTILE} 2")]
    for field in fields:
        field.description["info"]["views"][0]["name"] = HOSTILE
    tab = show(fields, title=HOSTILE)
    tab.still()
    assert tab.page.evaluate("window.hostile") is None
    assert tab.page.get_by_role("heading", level=1).inner_text() == HOSTILE
    assert tab.page.locator("#fields th").nth(0).inner_text() == HOSTILE
    assert HOSTILE in tab.page.get_by_label("Test views").inner_text()
    assert tab.page.locator("img").count() == 0


def test_the_policy_refuses_scripts_styles_and_connections(show: Open) -> None:
    tab = show(pair())
    tab.still()
    tab.page.evaluate("""() => {
      window.refused = [];
      document.addEventListener("securitypolicyviolation", (event) => window.refused.push(event.effectiveDirective));
      const script = document.createElement("script");
      script.textContent = "window.hostile = 1";
      document.body.append(script);
      const image = new Image();
      image.src = "https://example.invalid/x.png";
      const style = document.createElement("style");
      style.textContent = "body { display: none }";
      document.body.append(style);
      fetch("https://example.invalid/").catch(() => {});
    }""")
    tab.page.wait_for_function("() => window.refused.length >= 4")
    wanted = {"script-src-elem", "img-src", "style-src-elem", "connect-src"}
    assert set(tab.page.evaluate("window.refused")) == wanted
    assert tab.page.evaluate("window.hostile") is None
    assert any("Content Security Policy" in error for error in tab.errors)
    tab.errors.clear()
    tab.requests.clear()  # the image's, which was stopped in the browser


def test_a_folder_needs_a_server_and_says_so(browser: Any, tmp_path: Path) -> None:
    page = written(pair(), tmp_path / "page", inline=False)
    handler = partial(SimpleHTTPRequestHandler, directory=str(page.parent))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        tab = Opened(browser, address)
        tab.still()
        assert tab.last["fields"] == [["#c33", sum(range(64))], ["#36c", sum(range(64))]]
        assert set(tab.requests) - {f"{address}field-{i}.bin" for i in (0, 1)} == {address}
        tab.page.close()
        (page.parent / "field-1.bin").write_bytes(b"cut")
        tab = Opened(browser, address)
        tab.page.get_by_role("alert").wait_for()
        assert "the page was cut off" in tab.page.get_by_role("alert").inner_text()
        tab.page.close()
        server.shutdown()
    tab = Opened(browser, page.as_uri())
    tab.page.get_by_role("alert").wait_for()
    assert "python -m http.server" in tab.page.get_by_role("alert").inner_text()
    tab.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1200, 760), (390, 780)])
def test_controls_are_named_and_on_the_page(show: Open, scheme: str, size: tuple[int, int]) -> None:
    tab = show(pair(times=[0.0, 1.0]), viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    tab.still()
    if not tab.page.locator("#panel").is_visible():
        button(tab, "Controls").click()
    unnamed = tab.page.evaluate("""() => [...document.querySelectorAll("button, input, select, [role]")]
      .filter((each) => each.checkVisibility() && each.getAttribute("role") !== "status" &&
      !(each.getAttribute("aria-label") || each.getAttribute("aria-labelledby") || each.textContent.trim() ||
      each.labels?.length)).map((each) => each.outerHTML)""")
    assert unnamed == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    ground = tab.page.evaluate("getComputedStyle(document.getElementById('panel')).backgroundColor")
    assert (max(json.loads(ground.replace("rgb(", "[").replace(")", "]"))) < 60) == (scheme == "dark")
