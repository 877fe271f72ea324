// The part of the address after #: what is shown, as a text that is read strictly or not at all.

const NUMBER = /^-?\d{1,7}(\.\d{1,9})?$/;
const LONGEST = 600;
const FARTHEST = 1e6;

function numbers(text, count) {
  const parts = text.split(",");
  if (parts.length !== count || !parts.every((part) => NUMBER.test(part))) return null;
  const values = parts.map(Number);
  return values.every((value) => Math.abs(value) <= FARTHEST) ? values : null;
}

function within(text, low, high) {
  const value = numbers(text, 1)?.[0];
  return value !== undefined && value >= low && value <= high ? value : null;
}

function cameraOf(text) {
  const values = numbers(text, 8);
  if (values === null || !(values[7] > 0)) return null;
  return Math.abs(Math.hypot(...values.slice(3, 7)) - 1) < 0.01 ? values : null;
}

// For each field the number of a share that it has; null where it has none such.
function widthsOf(text, shares) {
  const found = numbers(text, shares.length)?.map((value, i) => {
    const own = shares[i].length > 0 ? shares[i] : [1];
    return own.findIndex((share) => Math.abs(share - value) < 1e-6);
  });
  return found?.every((number) => number >= 0) ? found : null;
}

function index(text, count) {
  return /^\d{1,4}$/.test(text) && Number(text) < count ? Number(text) : null;
}

// What a link says, {camera, lens, view, mode, split, time, shading, axis, offset, features}; null where any
// part of it is wrong.
// `scene`: {views: how many, modes, shadings, axes, times: [first, last] or null, shares: of the features, by field}.
export function parseLink(hash, scene) {
  const text = hash.replace(/^#/, "");
  if (text.length > LONGEST) return null;
  const readers = {
    camera: cameraOf,
    lens: (value) => index(value, scene.views),
    view: (value) => index(value, scene.views),
    mode: (value) => (scene.modes.includes(value) ? value : null),
    split: (value) => within(value, 0, 1),
    time: (value) => (scene.times ? within(value, scene.times[0], scene.times[1]) : null),
    shading: (value) => (scene.shadings.includes(value) ? value : null),
    axis: (value) => (scene.axes.includes(value) ? value : null),
    offset: (value) => within(value, 0, 1),
    features: (value) => widthsOf(value, scene.shares),
  };
  const found = {};
  for (const part of text.split("&")) {
    const [key, value, ...more] = part.split("=");
    if (!Object.hasOwn(readers, key) || Object.hasOwn(found, key) || value === undefined || more.length > 0) return null;
    const read = readers[key](value);
    if (read === null) return null;
    found[key] = read;
  }
  const places = Number("camera" in found) + Number("view" in found);
  return places === 1 ? found : null;
}

// The link that `parseLink` reads back.
export function formatLink(shown) {
  const short = (value) => (Array.isArray(value) ? value.map(short).join(",") : typeof value === "number" ? trimmed(value) : value);
  const parts = Object.entries(shown).filter(([, value]) => value !== null && value !== undefined);
  return "#" + parts.map(([key, value]) => `${key}=${short(value)}`).join("&");
}

function trimmed(value) {
  const text = value.toFixed(6).replace(/\.?0+$/, "");
  return text === "-0" || text === "" ? "0" : text;
}
