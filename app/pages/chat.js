// The chat: one conversation, kept in this tab until it is closed or begun anew.

import { byId, element, prose, write } from "./elements.js";
import { events, request } from "./server.js";

const messages = [];
const log = byId("messages");
const box = byId("message");
const send = byId("send");
const stop = byId("stop");
let running = null; // the AbortController of the answer under way
let canAnswer = false;
let model = "";

export function setModel(name, ready) {
  model = name;
  canAnswer = ready;
  update();
}

export function isAnswering() {
  return running !== null;
}

function update() {
  send.disabled = !canAnswer || !box.value.trim();
  send.hidden = running !== null;
  stop.hidden = running === null;
  byId("new-chat").hidden = messages.length === 0 || running !== null;
  byId("empty").hidden = log.querySelector(".message") !== null;
}

export function start(onEnd) {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!send.disabled && running === null) ask(onEnd);
  });
  box.addEventListener("input", () => {
    fit();
    update();
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("composer").requestSubmit();
  });
  stop.addEventListener("click", () => running?.abort());
  byId("new-chat").addEventListener("click", () => {
    messages.length = 0;
    log.querySelectorAll(".message").forEach((node) => node.remove());
    announce("");
    update();
    box.focus();
  });
  update();
}

function fit() {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

function announce(text) {
  write(byId("announcement"), text);
}

async function ask(onEnd) {
  const text = box.value.trim();
  box.value = "";
  fit();
  messages.push({ role: "user", content: text });
  log.append(element("div", { class: "message user" }, element("span", { class: "hidden" }, "You: "), element("div", { class: "text" }, text)));
  const answer = new Answer();
  log.append(answer.node);
  log.scrollTop = log.scrollHeight;
  running = new AbortController();
  update();
  stop.focus({ preventScroll: true });
  try {
    await answer.read(model, running.signal);
    announce("The answer is complete.");
  } catch (error) {
    if (running.signal.aborted) {
      answer.end("stopped");
      announce("Stopped.");
    } else {
      answer.fail(error);
      announce("There was an error.");
    }
  }
  // What was not answered at all is asked anew with the next message, or not: it is back in the box.
  if (answer.text || answer.calls.length) {
    messages.push({ role: "assistant", content: answer.text });
  } else {
    messages.pop();
    if (!box.value) box.value = text;
    fit();
  }
  running = null;
  update();
  box.focus({ preventScroll: true });
  onEnd();
}

class Answer {
  constructor() {
    this.text = "";
    this.reasoning = "";
    this.calls = [];
    this.timings = null;
    this.finish = "";
    this.waitsForFrame = false;
    this.summary = element("summary", {}, "Thinking");
    this.thoughts = element("details", { hidden: "", open: "" }, this.summary, element("div", { class: "text" }));
    this.body = element("div", {});
    this.facts = element("p", { class: "facts muted" }, "Waiting for the first token");
    const name = element("span", { class: "hidden" }, "Answer: ");
    this.node = element("div", { class: "message answer" }, name, this.thoughts, this.body, this.facts);
  }

  async read(name, signal) {
    const body = { messages, stream: true, timings_per_token: true, return_progress: true };
    if (name) body.model = name;
    const response = await request("v1/chat/completions", { body, signal });
    for await (const event of events(response)) this.take(event);
    this.draw();
    this.end(this.finish);
  }

  take(event) {
    const [choice] = event.choices;
    const { content, reasoning_content: reasoning, tool_calls: calls } = choice?.delta ?? {};
    this.text += content ?? "";
    this.reasoning += reasoning ?? "";
    for (const call of calls ?? []) this.takeCall(call);
    this.finish = choice?.finish_reason ?? this.finish;
    this.timings = event.timings ?? this.timings;
    this.progress = event.prompt_progress;
    if (this.waitsForFrame) return;
    this.waitsForFrame = true;
    requestAnimationFrame(() => this.draw());
  }

  takeCall({ index, function: part, id }) {
    const call = (this.calls[index] ??= { id: "", name: "", arguments: "" });
    call.id += id ?? "";
    call.name += part?.name ?? "";
    call.arguments += part?.arguments ?? "";
  }

  draw() {
    this.waitsForFrame = false;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    this.thoughts.hidden = !this.reasoning;
    write(this.thoughts.lastChild, this.reasoning);
    if (this.text && this.summary.textContent !== "Thoughts") {
      write(this.summary, "Thoughts");
      this.thoughts.open = false;
    }
    this.body.replaceChildren(...prose(this.text), ...this.calls.map(callCard));
    if (!this.finish) this.drawFacts("");
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  drawFacts(more) {
    const { predicted_n: tokens, predicted_per_second: speed } = this.timings ?? {};
    const parts = [];
    if (tokens) parts.push(`${tokens.toLocaleString()} ${tokens === 1 ? "token" : "tokens"}`);
    if (tokens > 1 && speed) parts.push(`${speed.toFixed(1)} tokens/s`);
    if (!tokens && this.progress?.total) {
      parts.push(`Reading the prompt: ${Math.round((100 * this.progress.processed) / this.progress.total)} %`);
    }
    if (more) parts.push(more);
    write(this.facts, parts.join(" · ") || "Waiting for the first token");
  }

  end(reason) {
    this.draw();
    const notes = { length: "cut off: the context, or the most tokens, are reached", stopped: "stopped" };
    write(this.summary, "Thoughts");
    if (!this.text && !this.calls.length && reason !== "stopped") reason = "empty";
    this.drawFacts(reason === "empty" ? "the model said nothing" : (notes[reason] ?? ""));
  }

  fail(error) {
    this.end("");
    const lost = error instanceof TypeError;
    const text = lost ? "The connection to the server was lost." : error.message;
    this.facts.className = "facts error";
    write(this.facts, text);
  }

}

function callCard(call) {
  const name = element("strong", {}, call.name);
  const pre = element("pre", { tabindex: "0" }, element("code", {}, call.arguments));
  return element("div", { class: "call" }, "Wants to call ", name, pre);
}
