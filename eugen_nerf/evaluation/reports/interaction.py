"""What a page of pictures does by mouse: a picture enlarged by a click, two of them under a slider."""

from __future__ import annotations

STYLE = """
.views img { cursor: zoom-in; }
dialog { border: 0; padding: 0; background: #000; max-width: 96vw; max-height: 96vh; }
dialog::backdrop { background: #000c; }
dialog img { display: block; width: min(92vw, 92vh * var(--ratio, 1)); image-rendering: pixelated; cursor: zoom-out; }
dialog p { margin: 0; padding: .3rem .6rem; color: #fff; font-size: .9rem; }
.pair { max-width: 32rem; margin: 1rem 0; }
.pair .stage { position: relative; cursor: ew-resize; touch-action: none; user-select: none; line-height: 0; }
.pair img { width: 100%; image-rendering: pixelated; pointer-events: none; }
.pair .top { position: absolute; inset: 0; clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.pair .edge { position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; margin-left: -1px; background: #fff; }
.pair .choice { display: flex; justify-content: space-between; gap: 1rem; margin-top: .3rem; }
.pair input { width: 100%; }
"""
"""For the elements that `SCRIPT` knows."""

PAIR = """<div class="pair" hidden>
<div class="stage"></div>
<input type="range" min="0" max="100" value="50" aria-label="share of the left picture">
<div class="choice"><select aria-label="left picture"></select><select aria-label="right picture"></select></div>
</div>
"""
"""A slider between two whole pictures of the view before it, which the script fills and shows."""

DIALOG = "<dialog><p></p></dialog>\n"
"""Where a picture is shown enlarged."""

SCRIPT = """
const dialog = document.querySelector("dialog"), large = new Image();
dialog.prepend(large);
for (const img of document.querySelectorAll(".views img")) {
  img.addEventListener("click", () => {
    large.src = img.src;
    large.alt = img.alt;
    dialog.style.setProperty("--ratio", img.naturalWidth / img.naturalHeight);
    dialog.querySelector("p").textContent = img.alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", () => dialog.close());
for (const pair of document.querySelectorAll(".pair")) {
  const whole = [...pair.previousElementSibling.querySelectorAll("img[data-name]")];
  if (whole.length < 2) continue;
  const stage = pair.querySelector(".stage"), range = pair.querySelector("input");
  const [left, right] = pair.querySelectorAll("select");
  const [under, top, edge] = [new Image(), new Image(), document.createElement("div")];
  [under.className, top.className, edge.className] = ["under", "top", "edge"];
  stage.append(under, top, edge);
  const show = (select, img) => { img.src = whole[select.value].src; img.alt = whole[select.value].alt; };
  const move = (share) => { range.value = share; stage.style.setProperty("--at", share + "%"); };
  const first = whole.length > 2 ? 1 : 0;
  for (const [select, img, number] of [[left, top, first], [right, under, first + 1]]) {
    whole.forEach((picture, index) => select.append(new Option(picture.dataset.name, index)));
    select.value = number;
    select.addEventListener("change", () => show(select, img));
    show(select, img);
  }
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    move(Math.min(100, Math.max(0, 100 * (event.clientX - box.left) / box.width)));
  };
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); follow(event); });
  stage.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  range.addEventListener("input", () => move(range.value));
  move(50);
  pair.hidden = false;
}
"""
"""Without it the page shows all its pictures as well."""
