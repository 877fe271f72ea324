// The buttons over the picture: link, screenshot, full screen, controls.
import { say } from "./notice.js";

function press(id, act) {
  document.getElementById(id).addEventListener("click", act);
}

// `linkOf()` is the part of the address after #; `picture()` gives the finest picture, {columns, rows, colours}.
export function connectTools(title, linkOf, picture) {
  press("share", () => share(linkOf()));
  press("screenshot", () => picture().then((made) => save(made, title)).catch((error) => say(error.message)));
  const full = document.getElementById("full-screen");
  full.hidden = !document.fullscreenEnabled;
  press("full-screen", () => {
    const done = document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen();
    done.catch(() => say("the browser refuses full screen"));
  });
  press("panel-toggle", () => openPanel(document.body.classList.contains("closed")));
}

export function openPanel(open) {
  document.body.classList.toggle("closed", !open);
  document.getElementById("panel-toggle").setAttribute("aria-expanded", open);
}

async function share(hash) {
  history.replaceState(null, "", hash);
  try {
    await navigator.clipboard.writeText(location.href);
    say("Link to this view copied");
  } catch {
    const text = document.getElementById("link-text");
    text.value = location.href;
    document.getElementById("link-dialog").showModal();
    text.select();
  }
}

// A file name made of a title: letters, digits and dashes.
export function fileName(title) {
  return title.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 60) || "scene";
}

async function save({ columns, rows, colours }, title) {
  const image = new ImageData(columns, rows);
  for (let i = 0; i < columns * rows; i += 1) {
    for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = Math.round(255 * Math.min(1, Math.max(0, colours[3 * i + c])));
    image.data[4 * i + 3] = 255;
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  canvas.getContext("2d").putImageData(image, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${fileName(title)}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`Saved ${link.download}`);
}
