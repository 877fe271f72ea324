"""The tab that compresses a dense run live, and saves the result as a run."""

from __future__ import annotations

import copy
from typing import Any

import viser

from eugen_nerf.core.errors import EugenError
from eugen_viewer.background_jobs import NewestValueWorker, Progress
from eugen_viewer.context import ViewerContext
from eugen_viewer.panels.compression import LiveCompression, Predicted, Widths
from eugen_viewer.panels.curve_plots import front_plot
from eugen_viewer.panels.readout import escape_markdown
from eugen_viewer.panels.widgets import inline_image
from eugen_viewer.shown_runs import ShownRun, open_run

GATHER_JOB, SAVE_JOB = "preparing the preview", "saving as run"
TITLE = "**Preview of `eugen-distill`** for *{name}*"
EXPLANATION = """The preview fits each layer in closed form on the dense run's own values. "Save as run" makes the full
conversion: it fits each layer on the outputs of the converted layers before it, and opens the result beside the dense
run."""


class CompressPanel:
    """Sliders for the numbers of features, a plot of their cost, and a button that saves.

    Args:
        app: the viewer.
        tab: of this panel. Preparation starts after the first image, for the run with the most replaceable layers.
    """

    def __init__(self, app: ViewerContext, tab: viser.GuiTabHandle) -> None:
        self.app, self._tab = app, tab
        gui = app.server.gui
        self.teacher: ShownRun | None = None
        self.compression: LiveCompression | None = None
        self.preview: ShownRun | None = None
        self.sliders: dict[tuple[str, str], viser.GuiInputHandle[int]] = {}
        self.overall: viser.GuiInputHandle[float] | None = None
        reasons, most = [], 0
        for shown_run in app.comparison.runs.values():
            compression = LiveCompression(shown_run.run, lock=app.comparison.renderer.lock)
            try:
                layers = compression.replaceable()
            except EugenError as error:
                reasons.append(f"*{escape_markdown(shown_run.name)}*: {escape_markdown(str(error))}")
                continue
            if layers > most:
                self.teacher, self.compression, most = shown_run, compression, layers
        if self.teacher is None:
            gui.add_markdown("No loaded run can be compressed live.\n\n" + "\n\n".join(reasons))
            return
        self.text = gui.add_markdown(
            f"The preview of *{escape_markdown(self.teacher.name)}* is being prepared.", order=-4.0
        )
        self.facts = gui.add_markdown("", order=-2.0)
        self.plot = gui.add_markdown("", order=-1.0)
        self._worker: NewestValueWorker[tuple[Widths, bool]] = NewestValueWorker(self._apply)
        self._begun = False
        app.on_display(self._begin)

    def wait_until_idle(self, timeout: float) -> bool:
        """Waits until the layers match the sliders; returns whether that happened within some seconds."""
        return self._worker.wait_until_idle(timeout)

    def _begin(self, session: object, frame: Any, image: object) -> None:
        if not self._begun and all(p.whole for p in frame.images.values()):
            self._begun = True
            self.app.jobs.start(GATHER_JOB, self._gather)

    def _gather(self, progress: Progress) -> str:
        compression, teacher = self.compression, self.teacher
        assert compression is not None
        assert teacher is not None
        try:
            compression.gather(progress)
        except Exception:
            self.text.content = f"*{escape_markdown(teacher.name)}* cannot be compressed live; the line above says why."
            raise
        assert compression.student is not None
        self.preview = ShownRun(f"{teacher.name} (preview)", teacher.run, compression.student)
        self.app.comparison.add(self.preview)
        self.text.content = TITLE.format(name=escape_markdown(teacher.name))
        with self._tab:
            gui, most = self.app.server.gui, round(compression.max_speedup() - 0.05, 1)
            self.overall = gui.add_slider("Speed-up", 1.0, max(1.1, min(most, 8.0)), 0.05, 1.0, order=-3.0)
            self.overall.on_update(self._overall_moved)
            for group, layers in compression.widths.items():
                for layer, width in layers.items():
                    name = layer if len(compression.widths) == 1 else f"{group} {layer}"
                    slider = gui.add_slider(name, 1, width, 1, width)
                    slider.on_update(self._slider_moved)
                    self.sliders[group, layer] = slider
            save = gui.add_button("Save as run", icon=viser.Icon.DEVICE_FLOPPY)
            save.on_click(lambda _: self._begin_saving())
            gui.add_markdown(EXPLANATION)
        self.app.compare_panel.update_runs()
        self._update_facts(plot=True)
        self.app.refresh()  # the displayed times were measured during this work
        return ""

    def _overall_moved(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is None or self.compression is None or self.overall is None:
            return
        try:
            widths = self.compression.widths_at_speedup(float(self.overall.value))
        except EugenError as error:
            self.facts.content = escape_markdown(str(error))
            return
        self._worker.put((widths, True))

    def _slider_moved(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is None:
            return
        widths: Widths = {}
        for (group, layer), slider in self.sliders.items():
            widths.setdefault(group, {})[layer] = int(slider.value)
        self._worker.put((widths, False))

    def _apply(self, wanted: tuple[Widths, bool]) -> None:
        """Refits, shows the preview beside the dense run, and updates the numbers."""
        widths, move_sliders = wanted
        compression, preview, teacher = self.compression, self.preview, self.teacher
        assert compression is not None
        assert preview is not None
        assert teacher is not None
        with self.app.comparison.renderer.lock:
            changed = compression.set(widths)
        if not changed:
            return
        preview.forget_networks()
        if preview.name not in (self.app.comparison.choice.first, self.app.comparison.choice.second):
            self.app.comparison.choose(first=teacher.name, second=preview.name, mode="split")
            self.app.compare_panel.update_runs()
        self.app.refresh()
        if move_sliders:
            for (group, layer), slider in self.sliders.items():
                if slider.value != compression.widths[group][layer]:
                    slider.value = compression.widths[group][layer]
        self._update_facts(plot=True)

    def _update_facts(self, *, plot: bool) -> None:
        compression = self.compression
        assert compression is not None
        now = compression.predicted()
        self.facts.content = facts(now, compression.refit_seconds)
        if plot:
            self.plot.content = inline_image(front_plot(compression.front(), now), "predicted error against cost")

    def _begin_saving(self) -> None:
        self.app.jobs.start(SAVE_JOB, self._save)

    def _save(self, progress: Progress) -> str:
        compression, teacher = self.compression, self.teacher
        assert compression is not None
        assert teacher is not None
        # a copy: sliders may move while the conversion runs
        frozen = copy.copy(compression)
        frozen.widths = copy.deepcopy(compression.widths)
        path = frozen.save(progress)
        progress(None, f"loading {path}")
        data = teacher.run.pipeline.datamanager.get_datapath()
        saved = open_run(path, "saved", device=str(teacher.model.device), data=data)
        if teacher.quality is not None:
            progress(None, "preparing fast rendering")
            saved.render_fast(teacher.quality)
        self.app.add_run(saved, beside=teacher.name)
        return f"wrote {path}"


def facts(now: Predicted, refit_seconds: float) -> str:
    """Description of the current choice."""
    lost = f"{now.drop:.2f} dB predicted loss" if now.drop is not None else f"predicted error {now.error:.2e}"
    refitted = f"; refitted in {1e3 * refit_seconds:.0f} ms" if refit_seconds else ""
    return f"**{now.speedup:.2f}x** fewer multiply-adds ({now.multiply_adds:,} a query), {lost}{refitted}"
