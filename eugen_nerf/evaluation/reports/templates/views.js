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
    whole.forEach((image, index) => select.append(new Option(image.dataset.name, index)));
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
