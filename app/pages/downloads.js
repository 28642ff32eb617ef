// Models that come from the hub and go again: the search, the bars, and deleting.

import { byId, bytes, element, replace, write } from "./elements.js";
import { request } from "./server.js";

let look; // has the page ask the server again
let canDelete = false;

export function start(again) {
  look = again;
  byId("download-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("download-name").value.trim();
    if (!text) return;
    if (/^(https:\/\/[^/]+\/)?[^\s/]+\/[^\s/]+$/.test(text)) download(text);
    else search(text);
  });
}

export function show(activity) {
  canDelete = activity.can_download;
  byId("download").hidden = !activity.can_download;
  const list = byId("downloads");
  const key = JSON.stringify(activity.downloads.map((one) => [one.id, one.status, one.error]));
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...activity.downloads.map(row));
  }
  activity.downloads.forEach((one, index) => {
    const share = one.done_bytes / Math.max(one.total_bytes, 1);
    const words = { queued: "waits", failed: "not downloaded" };
    const state = words[one.status] ?? `${Math.floor(100 * share)} % of ${bytes(one.total_bytes)}`;
    write(list.children[index].querySelector(".muted"), state);
    const bar = list.children[index].querySelector("progress");
    if (bar) bar.value = share;
  });
}

function row(one) {
  const name = element("p", { class: "model-name" }, one.id, element("span", { class: "muted" }));
  if (one.status === "failed") {
    const again = button("Try again", `Download ${one.id} again`, () => download(one.id));
    const away = button("Dismiss", `Dismiss the failure of ${one.id}`, () => act("models", { method: "DELETE", body: { model: one.id } }));
    return element("li", {}, name, element("p", { class: "model-facts error" }, one.error), again, " ", away);
  }
  const stop = button("Stop", `Stop the download of ${one.id}`, () => act("models/unload", { body: { model: one.id } }));
  return element("li", {}, name, element("progress", { max: 1, value: 0, "aria-label": `Downloading ${one.id}` }), stop);
}

export function deleteButton(id) {
  if (!canDelete) return "";
  return button("Delete", `Delete ${id} from this disk`, () => {
    if (!confirm(`Delete ${id} from the server's disk?`)) return;
    act("models", { method: "DELETE", body: { model: id }, headers: { "X-Confirm-Delete": id } });
  });
}

export function loadButton(id) {
  const made = button("Load", `Load ${id}`, async () => {
    made.disabled = true;
    made.textContent = "Loading…";
    await act("models/load", { body: { model: id } });
    made.disabled = false;
    made.textContent = "Load";
  });
  return made;
}

async function download(name) {
  if ((await act("models", { body: { model: name } })) === null) return;
  byId("download-name").value = "";
  byId("matches").replaceChildren();
}

async function search(text) {
  const matches = await act(`models/search?limit=8&q=${encodeURIComponent(text)}`);
  if (matches === null) return;
  if (!matches.data.length) say("The hub has no model of that name that this server could use.");
  replace(byId("matches"), matches.data.map((match) => {
    const facts = `${match.downloads.toLocaleString()} downloads a month${match.gated ? ", asks for your consent on the hub" : ""}`;
    const take = button("Download", `Download ${match.id}`, () => download(match.id));
    return element("li", {}, element("p", { class: "model-name" }, match.id), element("p", { class: "model-facts" }, facts), take);
  }));
}

async function act(path, options) {
  say("");
  try {
    const reply = await (await request(path, options)).json();
    if (reply.success === false) throw new Error(reply.error);
    return reply;
  } catch (error) {
    say(error.message);
    return null;
  } finally {
    look();
  }
}

function say(text) {
  write(byId("models-error"), text);
  byId("models-error").hidden = !text;
}

function button(text, label, then) {
  const made = element("button", { type: "button", class: "quiet", "aria-label": label }, text);
  made.addEventListener("click", then);
  return made;
}
