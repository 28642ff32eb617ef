// The `ollama` package from npm: node ollama.mjs URL
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const client = new Ollama({ host: process.argv[2] });
const greedy = { model: "tiles-nano", options: { temperature: 0 } };
const hello = [{ role: "user", content: "Hello!" }];
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Get the weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

const { models } = await client.list();
assert.deepEqual(models.map((model) => model.name), ["tiles-nano:latest"]);
assert.deepEqual((await client.ps()).models.map((model) => model.name), ["tiles-nano:latest"]);
const shown = await client.show({ model: models[0].name });
assert.ok(shown.capabilities.includes("tools"));
assert.equal(shown.model_info[`${shown.model_info["general.architecture"]}.context_length`], 8192);
assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/);

const whole = await client.chat({ ...greedy, messages: hello });
assert.match(whole.message.content, /Hello/);
assert.equal(whole.done_reason, "stop");
let text = "";
for await (const part of await client.chat({ ...greedy, messages: hello, stream: true })) text += part.message.content;
assert.equal(text, whole.message.content);

const called = await client.chat({
  ...greedy,
  messages: [{ role: "user", content: "What is the weather in Oslo?" }],
  tools: [weather],
});
assert.deepEqual(called.message.tool_calls[0].function.arguments, { city: "Oslo" });

const thought = await client.generate({ ...greedy, prompt: "Hello!", think: true });
assert.ok(thought.thinking && thought.response);
assert.equal((await client.embed({ model: "tiles-nano", input: ["a", "b"] })).embeddings.length, 2);
assert.equal((await client.generate({ model: "tiles-nano", prompt: "" })).done_reason, "load");

await assert.rejects(client.pull({ model: "x" }), (error) => /tiles-server pull/.test(error.message));
await assert.rejects(
  client.chat({ ...greedy, messages: [{ ...hello[0], images: ["AA=="] }] }),
  (error) => error.status_code === 400 && /images/.test(error.message),
);
console.log("all is well");
