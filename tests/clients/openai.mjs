// The `openai` package from npm: node openai.mjs URL [tools]
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [url, part] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "tiles", maxRetries: 0 });
const greedy = { model: "m", temperature: 0 };
const one = { parallel_tool_calls: false };
const hello = [{ role: "user", content: "Hello!" }];
const Person = z.object({ name: z.string().max(12), age: z.int().min(0).max(150), likes_tea: z.boolean() });
const weather = {
  name: "get_weather",
  description: "Get the weather of a city",
  parameters: {
    type: "object",
    properties: { city: { type: "string", maxLength: 12 } },
    required: ["city"],
    additionalProperties: false,
  },
};

async function words() {
  const whole = await client.chat.completions.create({ ...greedy, messages: hello });
  assert.match(whole.choices[0].message.content, /Hello/);

  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...greedy, messages: hello, stream: true }))
    text += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(text, whole.choices[0].message.content);

  const parsed = await client.chat.completions.parse({
    ...greedy,
    messages: hello,
    response_format: zodResponseFormat(Person, "person"),
  });
  assert.ok(Person.safeParse(parsed.choices[0].message.parsed).success);

  const first = await client.responses.create({ ...greedy, input: "My name is Ada." });
  const second = await client.responses.create({
    ...greedy,
    input: "What is my name?",
    previous_response_id: first.id,
  });
  assert.match(second.output_text, /Ada/);

  const stream = client.responses.stream({ ...greedy, input: "Hello!", store: false });
  let deltas = "";
  stream.on("response.output_text.delta", (event) => (deltas += event.delta));
  assert.equal((await stream.finalResponse()).output_text, deltas);

  const object = await client.responses.parse({
    ...greedy,
    input: "Hello!",
    text: { format: zodTextFormat(Person, "person") },
  });
  assert.ok(Person.safeParse(object.output_parsed).success);

  const vectors = await client.embeddings.create({ model: "m", input: ["a", "b"] });
  assert.equal(vectors.data.length, 2);
  assert.ok(Math.abs(vectors.data[0].embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-3);

  await assert.rejects(
    client.chat.completions.create({ ...greedy, messages: hello, modalities: ["audio"] }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "modalities",
  );
}

async function tools() {
  const asked = { ...greedy, ...one, messages: hello, tools: [{ type: "function", function: weather }] };
  const whole = await client.chat.completions.create({ ...asked, tool_choice: "required" });
  const [call] = whole.choices[0].message.tool_calls;
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city"]);

  let spoken = "";
  for await (const chunk of await client.chat.completions.create({ ...asked, tool_choice: "required", stream: true }))
    spoken += chunk.choices[0]?.delta?.tool_calls?.[0]?.function?.arguments ?? "";
  assert.equal(spoken, call.function.arguments);

  const runner = client.chat.completions.runTools({
    ...greedy,
    ...one,
    messages: [{ role: "user", content: "Hello!" }],
    tools: [{ type: "function", function: { ...weather, parse: JSON.parse, function: () => "sunny" } }],
    tool_choice: { type: "function", function: { name: "get_weather" } },
  });
  await runner.done();
  assert.equal(runner.messages.filter((message) => message.role === "tool")[0].content, "sunny");
}

await (part === "tools" ? tools() : words());
console.log("all is well");
