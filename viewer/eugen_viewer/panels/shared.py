"""The panel's first tab: which runs, how they are shown, test views, time; and the lines of long work."""

from __future__ import annotations

import base64
import io
import threading
import time
from typing import Any

import numpy as np
import viser
from PIL import Image

from eugen_nerf.methods.runs.image_metrics import Image8
from eugen_viewer.context import ViewerContext
from eugen_viewer.panels.readout import literal
from eugen_viewer.pictures import DIFFERENCE_COLOURS, Mode, map_colours

MODE_NAMES: dict[Mode, str] = {
    "split": "split",
    "first": "left alone",
    "second": "right alone",
    "difference": "difference",
}
"""What is chosen between, in words."""
_PLAY_SECONDS = 6.0
"""From the beginning of time to its end."""


def inline_image(picture: Image8, words: str) -> str:
    """Markdown of a picture that needs no file, as wide as the panel."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    code = base64.b64encode(buffer.getvalue()).decode()
    # an image in Markdown's own syntax would be 240 pixels wide at most
    return f'<img alt="{words}" src="data:image/png;base64,{code}" style={{{{width: "100%", borderRadius: 4}}}} />'


def colour_bar(name: str, low: str, high: str) -> str:
    """Markdown of a scale of colours with its ends."""
    ramp = np.repeat(np.linspace(0, 1, 256)[None], 14, axis=0)
    return f"{inline_image(map_colours(ramp, name), 'scale')}\n\n{low} ... {high}"


class JobLines:
    """What is being done, above all tabs: a line and a bar, there while there is something to say.

    Args:
        server: viser's.
    """

    def __init__(self, server: viser.ViserServer) -> None:
        self._text = server.gui.add_markdown("", order=-5.0)
        self._bar = server.gui.add_progress_bar(0.0, visible=False, order=-4.0)
        self.lines: dict[str, str] = {}
        """The last line of each piece of work, by its title."""

    def report(self, title: str, share: float | None, line: str) -> None:
        """Shows a line; the bar goes away at a share of 1, and an empty line at once."""
        self.lines[title] = line
        self._text.content = "\n\n".join(f"**{what}**: {literal(said)}" for what, said in self.lines.items() if said)
        self._bar.visible = share is None or share < 1
        if share is not None:
            self._bar.value = 100.0 * min(max(share, 0.0), 1.0)


class ComparePanel:
    """Runs, split, difference, outputs, test views.

    Args:
        app: the viewer.
    """

    def __init__(self, app: ViewerContext) -> None:
        self.app = app
        gui, show = app.server.gui, app.show
        names, choice = list(show.runs), show.choice
        self.first = gui.add_dropdown("Left", names, initial_value=choice.first)
        self.second = gui.add_dropdown("Right", [*names, "-"], initial_value=choice.second or "-")
        self.mode = gui.add_dropdown("Show", tuple(MODE_NAMES.values()), initial_value=MODE_NAMES[choice.look.mode])
        self.split = gui.add_slider("Split", 0.0, 1.0, 0.005, choice.look.split)
        self.output = gui.add_dropdown("Output", ("rgb",), initial_value="rgb")
        self.scale = gui.add_slider("Brightest at", 0.01, 1.0, 0.01, choice.look.full_scale)
        self.bar = gui.add_markdown("", visible=False)
        views = show.base.cameras
        if views is not None:
            self.view = gui.add_number("Test view", 0, min=0, max=len(views) - 1, step=1)
            self.go = gui.add_button("Go to test view", icon=viser.Icon.CAMERA)
            self.go.on_click(lambda event: self._go(event.client))
            self.view.on_update(lambda event: self._go(event.client))
        self.largest = gui.add_slider("Finest, pixels", 64, 2048, 32, max(64, show.renderer.pace.largest // 32 * 32))
        for handle in (self.first, self.second, self.mode, self.split, self.output, self.scale):
            handle.on_update(self._changed)
        self.largest.on_update(self._resized)
        self._arrange()

    def offer_runs(self) -> None:
        """Takes in runs that came later, and what is chosen by now."""
        show = self.app.show
        names, choice = tuple(show.runs), show.choice
        self.first.options, self.second.options = names, (*names, "-")
        self.first.value, self.second.value = choice.first, choice.second or "-"
        self.mode.value = MODE_NAMES[choice.look.mode]
        self._arrange()

    def _arrange(self) -> None:
        """Leaves out what has no effect on the present choice."""
        choice = self.app.show.choice
        self.first.visible = self.second.visible = len(self.app.show.runs) > 1
        self.mode.visible = choice.second is not None
        self.split.visible = choice.look.mode == "split"
        self.scale.visible = self.bar.visible = choice.look.mode == "difference"

    def offer_outputs(self, names: list[str]) -> None:
        """Lets outputs be chosen, and falls back to the first where the chosen one is not among them."""
        chosen = self.app.show.choice.look.output
        self.output.options = tuple(names)
        self.output.value = chosen if chosen in names else names[0]
        if chosen not in names:
            self.app.show.choose(output=names[0])
            self.app.recompose()

    def _go(self, client: viser.ClientHandle | None) -> None:
        session = self.app.session_of(client)
        if session is None:
            return
        view = int(self.view.value)
        cameras = self.app.show.base.cameras
        if cameras is not None and cameras.times is not None and self.app.time is not None:
            self.app.time.set(float(cameras.times[view]))
        session.go_to_view(view)

    def _changed(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is None:  # not a user's doing
            return
        second = None if self.second.value == "-" else self.second.value
        before = self.app.show.choice
        choice = self.app.show.choose(
            first=self.first.value,
            second=second,
            mode=next(mode for mode, name in MODE_NAMES.items() if name == self.mode.value),
            output=self.output.value,
            split=float(self.split.value),
            full_scale=float(self.scale.value),
        )
        if MODE_NAMES[choice.look.mode] != self.mode.value:
            self.offer_runs()
        if choice.look.mode == "difference" and before.look != choice.look:
            words = f"{choice.look.full_scale:.2f} or more (mean |a - b|)"
            self.bar.content = colour_bar(DIFFERENCE_COLOURS, "0", words)
        self._arrange()
        self.app.recompose()

    def _resized(self, _: Any) -> None:
        self.app.show.renderer.pace.largest = int(self.largest.value)
        self.app.refresh()


class TimePanel:
    """Time of a dynamic scene: a slider, and a button that lets it run.

    Args:
        app: the viewer.
    """

    def __init__(self, app: ViewerContext) -> None:
        self.app = app
        gui = app.server.gui
        self.slider = gui.add_slider("Time", 0.0, 1.0, 0.01, round(app.show.time, 4))
        self.play = gui.add_button("Play", icon=viser.Icon.PLAYER_PLAY)
        self.pause = gui.add_button("Pause", icon=viser.Icon.PLAYER_PAUSE, visible=False)
        self._playing = threading.Event()
        self.slider.on_update(self._moved)
        self.play.on_click(lambda _: self._start())
        self.pause.on_click(lambda _: self._playing.clear())

    def set(self, time_: float) -> None:
        """Sets the time."""
        self.app.show.time = time_
        self.slider.value = round(time_, 4)

    def _moved(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is not None:
            self.app.show.time = float(self.slider.value)
            self.app.refresh("move")

    def _start(self) -> None:
        if not self._playing.is_set():
            self._playing.set()
            self.play.visible, self.pause.visible = False, True
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        last = time.monotonic()
        while self._playing.is_set():
            time.sleep(0.1)
            now = time.monotonic()
            self.set((self.app.show.time + (now - last) / _PLAY_SECONDS) % 1.0)
            last = now
            self.app.refresh("move")
        self.play.visible, self.pause.visible = True, False
        self.app.refresh()
