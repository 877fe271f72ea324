// What cannot be shown and why, in the picture's place; and short messages that screen readers hear.

const BROWSERS = [
  "Chrome or Edge 113 or later, on Android 121 or later",
  "Safari 26 or later",
  "Firefox 141 or later on Windows, 145 or later on a Mac with Apple's processor",
];
const NO_GPU = [
  "turn hardware acceleration on in the browser's settings",
  "update the graphics driver",
  "on Linux, Chrome may need chrome://flags/#enable-unsafe-webgpu",
  "or open the page on another device, such as a phone",
];

function reasons(error, secure) {
  if (error.kind === "no-webgpu" && !secure) {
    return ["WebGPU needs https", "This page came by plain http, for which browsers switch WebGPU off. Open it by https, or save it and open the file.", []];
  }
  if (error.kind === "no-webgpu") {
    return ["This browser has no WebGPU", "The page renders the scene on your own GPU by WebGPU. It works in", BROWSERS];
  }
  if (error.kind === "no-adapter") {
    return ["No GPU to render with", "This browser has WebGPU, and offers no GPU. What helps:", NO_GPU];
  }
  if (error.kind === "limits") return ["Too large for this GPU", error.message, []];
  if (error.kind === "lost") return ["The GPU stopped", error.message, []];
  return ["The scene cannot be shown", error.message, []];
}

// Shows an error; `again`, where given, is called by a button.
export function showNotice(error, again) {
  const [title, text, list] = reasons(error, window.isSecureContext);
  const notice = document.getElementById("notice");
  notice.querySelector("h2").textContent = title;
  notice.querySelector("p").textContent = text;
  notice.querySelector("ul").replaceChildren(
    ...list.map((line) => {
      const item = document.createElement("li");
      item.textContent = line;
      return item;
    }),
  );
  const button = notice.querySelector("button");
  button.hidden = again === undefined;
  button.onclick = again ?? null;
  notice.hidden = false;
}

export function hideNotice() {
  document.getElementById("notice").hidden = true;
}

let fading = 0;

// A short message; `quietly`: for screen readers alone.
export function say(text, quietly = false) {
  const status = document.getElementById("status");
  status.textContent = text;
  clearTimeout(fading);
  status.classList.toggle("shown", !quietly);
  fading = setTimeout(() => status.classList.remove("shown"), 2600);
}
