// Numbers: of the fields, and of the pictures as they are drawn.

const RECENT = 12; // pictures of which the rate is a mean
const PAUSE = 400; // milliseconds without a picture that begin a new mean

// A number in three digits: 1234567 as 1.23 M.
export function short(number) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (number >= size) return `${(number / size).toPrecision(3)} ${unit}`;
  }
  return String(Math.round(number));
}

export function bytesText(bytes) {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function cell(kind, text) {
  const element = document.createElement(kind);
  element.textContent = text;
  if (kind === "th") element.title = text;
  return element;
}

// The table of the fields; `fields`: what the page says of each, `infos`: what the engine says, `widths`: which share of
// its features each is drawn with, by number.
export function fillTable(fields, infos, widths) {
  const table = document.getElementById("fields");
  const rows = [
    ["multiply-adds a query", (_, info, own) => own.macs.toLocaleString("en")],
    ["in this page", (field) => bytesText(field.payload.stored)],
    ["weights", (_, info) => `float${info.bits}`],
    ["PSNR, training", (_, info, own) => (own.quality ? `${own.quality.psnr.toFixed(2)} dB` : null)],
  ];
  const headings = document.createElement("tr");
  headings.append(cell("td", ""), ...fields.map((field) => cell("th", field.name)));
  if (fields.length > 1) table.tHead.replaceChildren(headings);
  const filled = rows.flatMap(([title, text]) => {
    const texts = fields.map((field, i) => text(field, infos[i], infos[i].shares[widths[i]] ?? infos[i]));
    if (texts.every((each) => each === null)) return [];
    const row = document.createElement("tr");
    row.append(cell("th", title), ...texts.map((each) => cell("td", each ?? "-")));
    return [row];
  });
  table.tBodies[0].replaceChildren(...filled);
}

export class Readout {
  #recent = [];

  // A picture is shown: its size, how long it took, whether something moves.
  picture({ columns, rows, milliseconds, queries, moving, narrower }, now) {
    if (this.#recent.length > 0 && now - this.#recent.at(-1) > PAUSE) this.#recent = [];
    if (moving) this.#recent = [...this.#recent, now].slice(-RECENT);
    const rate = this.#rate();
    const size = `${columns} x ${rows}${narrower > 0 ? ", fewer features" : ""}`;
    const corner = document.getElementById("corner");
    corner.hidden = false;
    corner.textContent = moving && rate !== null ? `${rate.toFixed(0)} frames/s, ${size}` : `${milliseconds.toFixed(0)} ms, ${size}`;
    this.#list({
      "frames a second": rate === null ? "-" : rate.toFixed(0),
      "one picture": `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`,
      pixels: size,
      queries: short(queries),
      "queries a ray": (queries / (columns * rows)).toFixed(1),
    });
  }

  #rate() {
    if (this.#recent.length < 3) return null;
    return (1000 * (this.#recent.length - 1)) / (this.#recent.at(-1) - this.#recent[0]);
  }

  #list(lines) {
    const list = document.getElementById("speed");
    list.replaceChildren(...Object.entries(lines).flatMap(([term, value]) => [cell("dt", term), cell("dd", value)]));
  }
}
