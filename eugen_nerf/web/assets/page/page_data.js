// What the page holds: its description, and the fields' weights as inert text or as files beside it.

export function readDescription() {
  return JSON.parse(document.getElementById("page-data").textContent);
}

function decoded(text) {
  const bytes = atob(text.trim());
  const values = new Uint8Array(bytes.length);
  for (let i = 0; i < bytes.length; i += 1) values[i] = bytes.charCodeAt(i);
  return values;
}

async function stored(payload, index) {
  if (payload.file === null) return decoded(document.getElementById(`payload-${index}`).textContent);
  let response;
  try {
    response = await fetch(payload.file);
  } catch {
    throw new Error(
      `${payload.file} cannot be read. A browser reads it over http alone: run "python -m http.server" in the ` +
        "page's folder and open http://localhost:8000. A page of one file opens without that.",
    );
  }
  if (!response.ok) throw new Error(`${payload.file} is not beside the page: copy the whole folder.`);
  return new Uint8Array(await response.arrayBuffer());
}

// The byte planes of values of several bytes, put together again.
function interleaved(bytes, planes) {
  const count = bytes.length / planes;
  const values = new Uint8Array(bytes.length);
  for (let plane = 0; plane < planes; plane += 1) {
    for (let i = 0; i < count; i += 1) values[i * planes + plane] = bytes[plane * count + i];
  }
  return values;
}

// The bytes of a field's weights, as an ArrayBuffer; throws where they are not those that the page was made with.
export async function readPayload(payload, index) {
  let bytes = await stored(payload, index);
  if (payload.compression === "gzip") {
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    bytes = new Uint8Array(await new Response(unpacked).arrayBuffer());
  }
  if (payload.planes > 1) bytes = interleaved(bytes, payload.planes);
  if (bytes.length !== payload.bytes) {
    throw new Error(`The field has ${bytes.length} bytes of ${payload.bytes}: the page was cut off, so get it again.`);
  }
  return bytes.buffer;
}
