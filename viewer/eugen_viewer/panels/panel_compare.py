"""The tab that compares runs: which runs, how they are displayed, test views; and the time of a dynamic scene."""

from __future__ import annotations

import threading
import time
from typing import Any

import viser

from eugen_viewer.background_jobs import NewestValueWorker
from eugen_viewer.context import ViewerContext
from eugen_viewer.image_composition import DIFFERENCE_COLOURS, Mode
from eugen_viewer.panels.widgets import colour_bar

MODE_NAMES: dict[Mode, str] = {
    "split": "split",
    "first": "left only",
    "second": "right only",
    "difference": "difference",
}
"""Labels of the modes."""
_PLAY_SECONDS = 6.0
"""Duration of playback from time 0 to 1."""


class ComparePanel:
    """Choice of runs, display mode, output and test view.

    Args:
        app: the viewer.
    """

    def __init__(self, app: ViewerContext) -> None:
        self.app = app
        gui, comparison = app.server.gui, app.comparison
        names, choice = list(comparison.runs), comparison.choice
        self.first = gui.add_dropdown("Left", names, initial_value=choice.first)
        self.second = gui.add_dropdown("Right", [*names, "-"], initial_value=choice.second or "-")
        self.mode = gui.add_dropdown("View", tuple(MODE_NAMES.values()), initial_value=MODE_NAMES[choice.settings.mode])
        self.split = gui.add_slider("Split position", 0.0, 1.0, 0.001, choice.settings.split)
        self.output = gui.add_dropdown("Output", ("rgb",), initial_value="rgb")
        self.scale = gui.add_slider("Difference scale", 0.01, 1.0, 0.01, choice.settings.full_scale)
        self.bar = gui.add_markdown("", visible=False)
        self.shares = {name: self._add_shares(name) for name, run in comparison.runs.items() if run.shares}
        """For each run of several widths its choice of one."""
        views = comparison.base.cameras
        if views is not None:
            self.view = gui.add_number("Test view", 0, min=0, max=len(views) - 1, step=1)
            self.go = gui.add_button("Go to test view", icon=viser.Icon.CAMERA)
            self.go.on_click(lambda event: self._go(event.client))
            self.view.on_update(lambda event: self._go(event.client))
        size = max(64, comparison.renderer.budget.max_size // 32 * 32)
        self.max_size = gui.add_slider("Max. size, pixels", 64, 2048, 32, size)
        for handle in (self.first, self.second, self.mode, self.split, self.output, self.scale):
            handle.on_update(self._changed)
        self.max_size.on_update(self._resized)
        self._arrange()

    @property
    def split_control(self) -> str:
        """Identifier, in the page, of the slider of the split."""
        return self.split._impl.id

    def update_runs(self) -> None:
        """Updates the list of runs and the current choice."""
        comparison = self.app.comparison
        names, choice = tuple(comparison.runs), comparison.choice
        self.first.options, self.second.options = names, (*names, "-")
        self.first.value, self.second.value = choice.first, choice.second or "-"
        self.mode.value = MODE_NAMES[choice.settings.mode]
        self._arrange()

    def _arrange(self) -> None:
        """Hides controls without effect on the current choice."""
        choice = self.app.comparison.choice
        self.first.visible = self.second.visible = len(self.app.comparison.runs) > 1
        self.mode.visible = choice.second is not None
        self.split.visible = choice.settings.mode == "split"
        self.scale.visible = self.bar.visible = choice.settings.mode == "difference"

    def update_outputs(self, names: list[str]) -> None:
        """Updates the list of outputs; falls back to the first if the chosen one is not available."""
        chosen = self.app.comparison.choice.settings.output
        self.output.options = tuple(names)
        self.output.value = chosen if chosen in names else names[0]
        if chosen not in names:
            self.app.comparison.choose(output=names[0])
            self.app.recompose()

    def _add_shares(self, name: str) -> viser.GuiDropdownHandle[str]:
        run = self.app.comparison.runs[name]
        words = {f"{100 * share:g} %": share for share in run.shares}
        shown = next((word for word, share in words.items() if share == run.share), None)
        control = self.app.server.gui.add_dropdown(f"Features of {name}", tuple(words), initial_value=shown)
        worker: NewestValueWorker[str] = NewestValueWorker(lambda word: self._evaluate_at(name, words[word]))
        control.on_update(lambda event: None if event.client is None else worker.put(control.value))
        return control

    def _evaluate_at(self, name: str, share: float) -> None:
        comparison = self.app.comparison
        with comparison.renderer.lock:
            comparison.runs[name].show_at(share)
        self.app.refresh()

    def _go(self, client: viser.ClientHandle | None) -> None:
        session = self.app.session_for(client)
        if session is None:
            return
        view = int(self.view.value)
        cameras = self.app.comparison.base.cameras
        if cameras is not None and cameras.times is not None and self.app.time_panel is not None:
            self.app.time_panel.set(float(cameras.times[view]))
        session.go_to_view(view)

    def _changed(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is None:  # not changed by a user
            return
        second = None if self.second.value == "-" else self.second.value
        before = self.app.comparison.choice
        choice = self.app.comparison.choose(
            first=self.first.value,
            second=second,
            mode=next(mode for mode, name in MODE_NAMES.items() if name == self.mode.value),
            output=self.output.value,
            split=float(self.split.value),
            full_scale=float(self.scale.value),
        )
        if MODE_NAMES[choice.settings.mode] != self.mode.value:
            self.update_runs()
        if choice.settings.mode == "difference" and before.settings != choice.settings:
            text = f"{choice.settings.full_scale:.2f} or more (mean |a - b|)"
            self.bar.content = colour_bar(DIFFERENCE_COLOURS, "0", text)
        self._arrange()
        self.app.recompose()

    def _resized(self, _: Any) -> None:
        self.app.comparison.renderer.budget.max_size = int(self.max_size.value)
        self.app.refresh()


class TimePanel:
    """Time of a dynamic scene: a slider, and buttons for playback.

    Args:
        app: the viewer.
    """

    def __init__(self, app: ViewerContext) -> None:
        self.app = app
        gui = app.server.gui
        self.slider = gui.add_slider("Time", 0.0, 1.0, 0.01, round(app.comparison.time, 4))
        self.play = gui.add_button("Play", icon=viser.Icon.PLAYER_PLAY)
        self.pause = gui.add_button("Pause", icon=viser.Icon.PLAYER_PAUSE, visible=False)
        self._playing = threading.Event()
        self.slider.on_update(self._moved)
        self.play.on_click(lambda _: self._start())
        self.pause.on_click(lambda _: self._playing.clear())

    def set(self, time_: float) -> None:
        """Sets the time."""
        self.app.comparison.time = time_
        self.slider.value = round(time_, 4)

    def _moved(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is not None:
            self.app.comparison.time = float(self.slider.value)
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
            self.set((self.app.comparison.time + (now - last) / _PLAY_SECONDS) % 1.0)
            last = now
            self.app.refresh("move")
        self.play.visible, self.pause.visible = True, False
        self.app.refresh()
