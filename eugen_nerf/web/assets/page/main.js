// The page: reads what it holds, opens the engine, and connects the controls with what is drawn.
import { Camera } from "./camera.js";
import { Controls } from "./controls.js";
import { Drawing } from "./drawing.js";
import { EngineSession } from "./engine_session.js";
import { fitted, plainLens } from "./lens.js";
import { formatLink, parseLink } from "./link.js";
import { hideNotice, say, showNotice } from "./notice.js";
import { readDescription } from "./page_data.js";
import { AXES, connectPanel, modesOf, sliceOffset } from "./panel.js";
import { Readout, fillTable } from "./readout.js";
import { SplitHandle } from "./split_handle.js";
import { Store } from "./store.js";
import { Timeline } from "./timeline.js";
import { connectTools, openPanel } from "./tools.js";
import { Views } from "./views.js";
import { Widths } from "./widths.js";

const page = readDescription();
const stage = document.getElementById("stage");
const picture = document.getElementById("picture");
const session = new EngineSession(picture, page.fields, lost);
let scene = null; // what the page does once the fields are there
let ready = null; // the engine that has compiled all widths, or does
let compiled = []; // for each field the narrowest width that is, by its number

async function open() {
  hideNotice();
  prepare(true);
  try {
    await session.open();
  } catch (error) {
    prepare(false);
    const again = ["no-webgpu", "limits"].includes(error.kind) ? undefined : open;
    showNotice(error, again);
    return;
  }
  scene ??= connect(session.loaded.map((field) => field.info));
  scene.start();
}

// Says that the scene is being prepared, until the first picture says how large it is.
function prepare(begins) {
  const corner = document.getElementById("corner");
  corner.hidden = !begins;
  corner.textContent = "preparing the scene ...";
  if (begins) say("Preparing the scene", true);
}

function lost(error) {
  if (!session.mayReopen) {
    showNotice(error, open);
    return;
  }
  say("The GPU was lost: starting again");
  open();
}

function connect(infos) {
  const info = infos[0];
  const names = page.fields.map((field) => field.name);
  const [low, high] = [info.box.slice(0, 3), info.box.slice(3)];
  const centre = low.map((n, i) => (n + high[i]) / 2);
  const extent = Math.hypot(...low.map((n, i) => high[i] - n));
  const scope = {
    views: info.views.length, modes: modesOf(names.length), shadings: info.shadings, axes: AXES, times: info.times,
    shares: infos.map((each) => each.shares.map(({ share }) => share)),
  };
  const store = new Store({
    mode: scope.modes[0], split: 0.5, time: info.times?.[0] ?? 0, shading: "colour", axis: "z", offset: 0.5, view: null,
    lens: info.views.length > 0 ? 0 : null, motion: "orbit", widths: infos.map(() => 0),
  });
  const camera = new Camera();
  const drawing = new Drawing(session, { size, step, moving, costs, settings }, shown, failed);
  const commands = {
    "[": () => views.step(-1), "]": () => views.step(1), home: () => first(), " ": () => timeline.toggle(),
  };
  const controls = new Controls(picture, camera, moved, commands);
  const split = new SplitHandle(store, names);
  const timeline = new Timeline(store, info.times);
  const readout = new Readout();
  const views = new Views(store, names, infos, go);
  const widths = new Widths(store, names, infos, (field, share) => session.prepare(field, share));
  connectPanel(store, controls, names, info);
  connectTools(page.title, link, () => drawing.finest());
  fillTable(page.fields, infos, store.values.widths);
  document.body.classList.remove("bare");
  openPanel(window.innerWidth > 760);
  timeline.onPlay = () => drawing.changed();
  store.onChange((_, changed) => {
    if (changed.includes("widths")) fillTable(page.fields, infos, store.values.widths);
    if (changed.some((key) => key !== "motion")) drawing.changed();
  });
  new ResizeObserver(() => {
    split.arrange();
    drawing.changed();
  }).observe(stage);
  window.addEventListener("hashchange", follow);
  first();
  if (location.hash.length > 1) follow();
  split.arrange();
  return drawing;

  function size() {
    return { width: stage.clientWidth, height: stage.clientHeight };
  }

  function step(seconds) {
    controls.step(seconds);
    timeline.step(seconds);
  }

  function moving() {
    return controls.busy || timeline.playing;
  }

  // The numbers of the fields that are shown.
  function numbers() {
    return { first: [0], second: [1], split: [0, 1], difference: [0, 1] }[store.values.mode];
  }

  // Which share of its features a field is drawn with, by number: some widths below the chosen one, of those compiled.
  function shareOf(number, narrower) {
    const chosen = store.values.widths[number];
    return Math.max(chosen, Math.min(chosen + narrower, compiled[number] ?? 0));
  }

  function costs() {
    const most = Math.max(...numbers().map((number) => shareOf(number, Infinity) - store.values.widths[number]));
    const macs = (number, narrower) => (infos[number].shares[shareOf(number, narrower)] ?? infos[number]).macs;
    return Array.from({ length: most + 1 }, (_, k) => numbers().reduce((sum, number) => sum + macs(number, k), 0));
  }

  function settings(grid, narrower) {
    const { mode, time, shading, axis, offset, lens } = store.values;
    const fields = numbers().map((number) => session.loaded[number]);
    const own = lens === null ? plainLens() : info.views[lens];
    return {
      fields,
      shares: numbers().map((number) => shareOf(number, narrower)),
      camera: { pose: camera.pose, ...fitted(own, size(), grid) },
      time,
      mode: fields.length > 1 ? mode : "single",
      split: Math.round(store.values.split * stage.clientWidth) / stage.clientWidth,
      shading,
      slice: { axis: AXES.indexOf(axis), offset: sliceOffset(info.box, axis, offset) },
    };
  }

  function shown(made, now) {
    readout.picture(made, now);
    document.body.dataset.picture = made.moving ? "moving" : "still";
    if (!made.moving && ready !== session.engine) prepareWidths();
  }

  // Compiles the other widths once there is a picture, one after another, so that a choice shows at once.
  async function prepareWidths() {
    const done = [];
    [ready, compiled] = [session.engine, done];
    for (const [field, { shares }] of session.loaded.entries()) {
      for (let share = 1; share < shares; share += 1) {
        if (!(await session.prepare(field, share).then(() => true, () => false))) break;
        done[field] = share;
      }
    }
  }

  function failed(error) {
    showNotice(error, open);
  }

  function moved() {
    store.change({ view: null });
    drawing.changed();
  }

  function go(index) {
    const view = info.views[index];
    camera.setPose(view.pose, centre, extent / 100);
    store.change({ view: index, lens: index, ...(info.times && view.time !== null ? { time: view.time } : {}) });
    drawing.changed();
    say(`Test view ${index}, ${view.name}`, true);
  }

  function first() {
    if (info.views.length > 0) go(0);
    else camera.lookAt(centre, 1.1 * extent);
    drawing.changed();
  }

  function link() {
    const { view, lens, mode, split: at, time, shading, axis, offset } = store.values;
    const slice = shading === "slice" ? { axis, offset } : {};
    const chosen = store.values.widths;
    const features = chosen.some((number) => number > 0) ? chosen.map((number, i) => scope.shares[i][number] ?? 1) : null;
    const place = view === null ? { camera: camera.numbers, lens } : { view };
    return formatLink({
      ...place, mode: mode === scope.modes[0] ? null : mode, split: mode === "split" ? at : null,
      time: info.times ? time : null, shading: shading === "colour" ? null : shading, ...slice,
      features,
    });
  }

  function follow() {
    const found = parseLink(location.hash, scope);
    if (found === null) {
      say("The link does not name a view of this scene");
      return;
    }
    const { camera: place, view, features, ...others } = found;
    if (view !== undefined) go(view);
    else camera.setNumbers(place);
    store.change({ mode: scope.modes[0], shading: "colour", ...others, view: view ?? null });
    widths.choose(features ?? names.map(() => 0));
    drawing.changed();
  }
}

open();
