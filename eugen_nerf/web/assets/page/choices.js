// A row of buttons of which one is chosen: a radio group that arrow keys move in.

// `options`: [value, label, ...]; `choose(value)` is called by a click or key. Returns what marks the chosen one.
export function makeChoices(name, options, choose) {
  const group = document.querySelector(`[data-choice="${name}"]`);
  const buttons = options.map(([value, label]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("role", "radio");
    button.dataset.value = value;
    button.textContent = button.title = label;
    button.addEventListener("click", () => choose(value));
    return button;
  });
  group.replaceChildren(...buttons);
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step === undefined) return;
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
    event.preventDefault();
  });
  return (value) => {
    for (const button of buttons) {
      const chosen = button.dataset.value === value;
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
    }
  };
}
