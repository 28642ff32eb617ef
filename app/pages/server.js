// Talking to the server: its address, the key of this tab, errors in plain words, and the events of a stream.

const KEY = "tiles-server-key";
export const root = new URL("../", import.meta.url);

export class ServerError extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

export function hasKey() {
  return Boolean(sessionStorage.getItem(KEY));
}

export async function request(path, { body, signal, method, headers: more } = {}) {
  const headers = { ...more };
  const key = sessionStorage.getItem(KEY);
  // A header holds bytes: other letters than those of Latin-1 go as UTF-8, which the server takes as well.
  if (key) headers.Authorization = "Bearer " + String.fromCharCode(...new TextEncoder().encode(key));
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(new URL(path, root), {
    method: method ?? (body ? "POST" : "GET"),
    headers,
    body: body && JSON.stringify(body),
    signal,
    cache: "no-store",
  });
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const error = await response.json().then((reply) => reply.error, () => null);
  const message = error?.message ?? `The server answered ${response.status}`;
  return new ServerError(response.status, message, error?.code);
}

// Give the JSON of each event of a stream, up to its end mark.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (buffer + value).split("\n");
    buffer = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue; // comments keep the connection alive
      if (line === "data: [DONE]") return;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new ServerError(0, event.error.message, event.error.code);
      yield event;
    }
  }
}
