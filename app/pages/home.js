// The page at / and /home: asks GET /v1/activity every two seconds, and shows what it says.

import * as chat from "./chat.js";
import * as downloads from "./downloads.js";
import { byId, bytes, command, element, replace, write } from "./elements.js";
import { hasKey, request, root, setKey } from "./server.js";

const SECONDS = 2;
const isUsual = location.hostname === "127.0.0.1" && location.port === "6969";
const url = isUsual ? "" : ` --url ${root.origin}`;
let activity = null;
let selected = ""; // the model that the person chose, of several
let timer = 0;
let usageAt = 0; // when the numbers of use are read again

function start() {
  for (const place of document.querySelectorAll(".command")) {
    place.dataset.template = place.dataset.command;
    fill(place);
  }
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(byId("key").value.trim());
    look();
  });
  byId("model").addEventListener("change", (event) => {
    selected = event.target.value;
    chooseModel();
  });
  document.addEventListener("visibilitychange", () => document.hidden || look());
  downloads.start(look);
  chat.start(() => {
    usageAt = 0;
    look();
  });
  look();
}

function fill(place) {
  const key = hasKey() ? " -H 'Authorization: Bearer YOUR_KEY'" : "";
  const address = root.href.replace(/\/$/, "");
  const text = place.dataset.template.replace("{origin}", address).replace("{key}", key).replace("{url}", url);
  const made = command(text);
  made.dataset.template = place.dataset.template;
  place.replaceWith(made);
}

async function look() {
  clearTimeout(timer);
  try {
    const response = await request("v1/activity", { signal: AbortSignal.timeout(10_000) });
    activity = await response.json();
    show();
    if (activity.usage && Date.now() >= usageAt) await readUsage();
  } catch (error) {
    showFailure(error);
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, SECONDS * 1000);
}

async function readUsage() {
  usageAt = Date.now() + 60_000;
  const usage = await (await request("v1/usage", { signal: AbortSignal.timeout(10_000) })).json();
  byId("usage").hidden = usage.total.requests === 0;
  const rows = new Map(usage.data.map((row) => [row.day, row]));
  const none = { requests: 0, prompt_tokens: 0, cached_tokens: 0, completion_tokens: 0 };
  write(byId("used-today"), used(rows.get(usage.end) ?? none));
  write(byId("used-total"), used(usage.total));
  const days = [];
  for (let day = Date.parse(usage.start); day <= Date.parse(usage.end); day += 86_400_000) {
    days.push(tokens(rows.get(new Date(day).toISOString().slice(0, 10)) ?? none));
  }
  const most = Math.max(...days, 1);
  const width = 300 / days.length;
  byId("days").replaceChildren(...days.map((amount, index) => {
    const height = amount && Math.max(1, (38 * amount) / most);
    const bar = shape("rect", "day");
    const box = { x: index * width + 1, y: 40 - height, width: width - 2, height };
    for (const [name, value] of Object.entries(box)) bar.setAttribute(name, value.toFixed(1));
    return bar;
  }));
}

// What was computed: tokens from the cache cost next to nothing.
function tokens(row) {
  return row.prompt_tokens - row.cached_tokens + row.completion_tokens;
}

function used(row) {
  return `${row.requests.toLocaleString()} ${row.requests === 1 ? "request" : "requests"}, ${count(tokens(row))} tokens`;
}

// What keeps the page from showing anything: no key, no server.

function showFailure(error) {
  chat.setModel("", false);
  const needsKey = error.status === 401;
  const keyField = byId("key-section");
  if (needsKey && hasKey()) write(byId("key-text"), "That is not a key of this server. Try again.");
  if (needsKey && keyField.hidden) {
    keyField.hidden = false;
    byId("key").focus();
  }
  if (needsKey) {
    setState("wait", "A key is needed");
    return hideNotice();
  }
  keyField.hidden = true;
  setState("bad", "No answer");
  const command = isUsual ? "tiles-server" : `tiles-server --port ${location.port || 80}`;
  if (error.status) notice("The server refuses to answer", error.message, { bad: true });
  else notice("The server does not answer", "It has ended, or is starting again. Start it as before; this page goes on by itself.", { bad: true, commands: [command] });
}

function setState(kind, text) {
  byId("state").dataset.state = kind;
  write(byId("state-text"), text);
}

function notice(title, text, { bad = false, progress, commands = [] } = {}) {
  const section = byId("notice");
  section.hidden = false;
  section.classList.toggle("bad", bad);
  write(byId("notice-title"), title);
  write(byId("notice-text"), text);
  const bar = byId("notice-progress");
  bar.hidden = progress === undefined;
  bar.value = progress ?? 0;
  const list = byId("notice-commands");
  if (list.dataset.commands === commands.join("\n")) return;
  list.dataset.commands = commands.join("\n");
  list.replaceChildren(...commands.map(command));
}

function hideNotice() {
  byId("notice").hidden = true;
}

// What the server says.

function show() {
  if (!byId("key-section").hidden) {
    byId("key-section").hidden = true;
    byId("message").focus();
    write(byId("key-note"), ", but yours");
    document.querySelectorAll(".command[data-template]").forEach(fill);
  }
  write(byId("version"), activity.version);
  byId("web-ui-link").hidden = byId("web-ui-there").hidden = !activity.web_ui;
  byId("web-ui-missing").hidden = activity.web_ui;
  showState();
  downloads.show(activity);
  showModels();
  showMachine();
  chooseModel();
}

function showState() {
  const loaded = activity.models.filter((model) => model.status === "loaded");
  const failure = activity.error ? `The last model could not be loaded: ${activity.error}` : "";
  if (activity.status === "stuck") {
    const fault = activity.machines.length ? "A machine is gone" : "The engine hangs";
    setState("bad", fault);
    notice(fault, `${activity.error}. The server starts itself again, with the same model; this page goes on by itself.`, { bad: true });
  } else if (activity.status === "loading") {
    const percent = Math.round(100 * activity.progress);
    setState("wait", `Loading ${activity.loading}: ${percent} %`);
    notice(`Loading ${activity.loading}`, "You can write in a moment.", { progress: activity.progress });
  } else if (loaded.length) {
    setState("good", loaded.length === 1 ? loaded[0].id : `${loaded.length} models loaded`);
    if (failure) notice("A model could not be loaded", failure, { bad: true });
    else hideNotice();
  } else if (activity.several) {
    setState("good", "Ready");
    if (activity.models.length) hideNotice();
    else notice("The folder has no models", "This server was started with --models-dir, and nothing in that folder is a model. What is put there appears here.", { commands: ["tiles-server pull mlx-community/Qwen3-4B-4bit"] });
  } else if (activity.by_name && activity.available.length) {
    setState("good", "Ready");
    if (failure) notice("A model could not be loaded", failure, { bad: true });
    else hideNotice();
  } else {
    setState("wait", "No model");
    const first = activity.available[0];
    const serve = first ? `tiles-server --model ${first.id}` : "tiles-server --demo";
    const text = failure || "Stop the server and start it again with one: the demo model that comes with it, one of this machine, or one that you download.";
    const commands = first ? [serve, "tiles-server --demo"] : [serve, "tiles-server pull mlx-community/Qwen3-4B-4bit", "tiles-server --model mlx-community/Qwen3-4B-4bit"];
    notice(failure ? "The model could not be loaded" : "No model is loaded", text, { bad: Boolean(failure), commands });
  }
}

function choices() {
  if (activity.several) return activity.models.map((model) => model.id);
  if (!activity.by_name) return [];
  return [...new Set([...activity.models, ...activity.available].map((model) => model.id))];
}

function chooseModel() {
  const names = choices();
  const select = byId("model");
  const loaded = activity.models.find((model) => model.status === "loaded");
  select.hidden = names.length === 0;
  byId("only-model").hidden = names.length > 0;
  if (select.dataset.names !== names.join("\n")) {
    select.dataset.names = names.join("\n");
    select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  }
  if (!names.includes(selected)) selected = names.length ? (loaded?.id ?? names[0]) : "";
  if (names.length) select.value = selected;
  write(byId("only-model"), loaded?.id ?? "");
  const works = activity.status === "ok" && (names.length > 0 || loaded !== undefined);
  chat.setModel(selected || loaded?.id || "", works);
}

const WORDS = { loaded: "in memory", loading: "loading", unloading: "leaving memory", unloaded: "loads when asked", failed: "could not be loaded" };

function showModels() {
  const rows = activity.models.map(modelRow);
  if (activity.status === "loading") rows.unshift(row(activity.loading, WORDS.loading, [], activity.progress));
  if (!rows.length) rows.push(element("li", { class: "muted" }, "None yet"));
  replace(byId("models"), rows);
  const loaded = new Set(activity.models.map((model) => model.id));
  const others = activity.available.filter((model) => !loaded.has(model.id));
  byId("others").hidden = others.length === 0;
  const how = activity.by_name ? "A request that names one of these loads it." : "Loaded, one takes the place of the model in memory.";
  write(byId("others-text"), how);
  const items = others.map((model) => {
    const size = element("span", { class: "muted" }, bytes(model.size_bytes));
    const name = element("p", { class: "model-name" }, model.id, size);
    const remove = model.can_remove ? [" ", downloads.deleteButton(model.id)] : [];
    return element("li", {}, name, downloads.loadButton(model.id), ...remove);
  });
  replace(byId("others-list"), items);
}

function modelRow(model) {
  const facts = [];
  if (model.parameters) facts.push(`${count(model.parameters)} parameters`);
  if (model.precision) facts.push(model.precision);
  if (model.context) facts.push(`context ${model.context.toLocaleString()}`);
  if (model.size_bytes) facts.push(bytes(model.size_bytes));
  if (model.error) facts.push(model.error);
  const actions = model.can_remove && ["unloaded", "failed"].includes(model.status) ? [downloads.deleteButton(model.id)] : [];
  return row(model.id, WORDS[model.status], facts, model.progress, actions);
}

function row(id, word, facts, progress, actions = []) {
  const parts = [element("p", { class: "model-name" }, id, element("span", { class: "muted" }, word))];
  if (facts.length) parts.push(element("p", { class: "model-facts" }, facts.map((fact) => fact.length < 40 ? fact.replaceAll(" ", "\u00a0") : fact).join(" · ")));
  if (progress !== undefined) parts.push(element("progress", { max: 1, value: progress, "aria-label": `Loading ${id}` }));
  return element("li", {}, ...parts, ...actions);
}

function showMachine() {
  const { memory, cache, speed } = activity;
  const used = memory.total_bytes - memory.available_bytes;
  write(byId("memory-text"), `${bytes(used)} of ${bytes(memory.total_bytes)}`);
  byId("memory").value = used / memory.total_bytes;
  write(byId("running"), String(activity.running));
  write(byId("waiting"), String(activity.waiting));
  const prompts = cache.prompt_tokens + cache.cached_tokens;
  write(byId("cached"), prompts ? `${Math.round((100 * cache.cached_tokens) / prompts)} %` : "–");
  document.querySelectorAll(".group").forEach((part) => { part.hidden = !activity.machines.length; });
  write(byId("machines"), activity.machines.map(({ host, state }) => (state === "ready" ? host : `${host} (${state})`)).join(", "));
  draw(speed.completion_tokens_per_second);
}

function draw(rates) {
  const now = rates.at(-1) || rates.at(-2) || 0;
  write(byId("rate"), now >= 10 || now === 0 ? String(Math.round(now)) : now.toFixed(1));
  const most = Math.max(...rates, 1);
  const points = rates.map((rate, index) => `${((300 * index) / (rates.length - 1)).toFixed(1)},${(55 - (52 * rate) / most).toFixed(1)}`);
  const graph = byId("graph");
  if (!graph.firstChild) graph.append(shape("polygon", "area"), shape("polyline", "line"));
  graph.firstChild.setAttribute("points", `0,56 ${points.join(" ")} 300,56`);
  graph.lastChild.setAttribute("points", points.join(" "));
  graph.setAttribute("aria-label", `Tokens per second of the last five minutes: ${Math.round(now)} now, ${Math.round(Math.max(...rates))} at most`);
}

function shape(name, kind) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  made.setAttribute("class", kind);
  return made;
}

function count(number) {
  if (number >= 1e9) return `${(number / 1e9).toFixed(1)} billion`;
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)} million`;
  return number.toLocaleString();
}

start();
