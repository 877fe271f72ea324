// The controls beside the picture: which fields, which shading, which slice, how a drag moves.
import { makeChoices } from "./choices.js";

export const AXES = ["x", "y", "z"];
const SHADINGS = { colour: "Colour", depth: "Depth", normals: "Normals", slice: "Slice" };

// Ways to show so many fields.
export function modesOf(count) {
  return count > 1 ? ["split", "first", "second", "difference"] : ["first"];
}

export function connectPanel(store, controls, names, info) {
  const labels = { split: "Split", first: names[0], second: names[1], difference: "Difference" };
  const modes = modesOf(names.length).map((mode) => [mode, labels[mode]]);
  const markMode = makeChoices("mode", modes, (mode) => store.change({ mode }));
  document.getElementById("compare").hidden = modes.length < 2;
  const shadings = info.shadings.map((each) => [each, SHADINGS[each]]);
  const markShading = makeChoices("shading", shadings, (shading) => store.change({ shading }));
  document.getElementById("shadings").hidden = false;
  const markAxis = makeChoices("axis", AXES.map((axis) => [axis, axis]), (axis) => store.change({ axis }));
  const markMotion = makeChoices("motion", [["orbit", "Orbit"], ["fly", "Fly"]], (motion) => store.change({ motion }));
  const offset = document.getElementById("slice-offset");
  offset.addEventListener("input", () => store.change({ offset: Number(offset.value) }));
  const arrange = ({ mode, shading, axis, motion, offset: at }) => {
    markMode(mode);
    markShading(shading);
    markAxis(axis);
    markMotion(motion);
    controls.flies = motion === "fly";
    document.getElementById("slice").hidden = shading !== "slice";
    offset.value = at;
    document.getElementById("slice-value").textContent = sliceOffset(info.box, axis, at).toFixed(2);
    arrangeLegend(mode, shading);
  };
  store.onChange(arrange);
  arrange(store.values);
}

// Scene coordinate of a slice that lies at a share of the box.
export function sliceOffset(box, axis, share) {
  const i = AXES.indexOf(axis);
  return box[i] + share * (box[3 + i] - box[i]);
}

function arrangeLegend(mode, shading) {
  const legend = document.getElementById("legend");
  legend.hidden = mode !== "difference" || shading !== "colour";
  legend.querySelector("b").textContent = "difference 0 to 0.1";
}
