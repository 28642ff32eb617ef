// The Vercel AI SDK: node ai_sdk.mjs URL [tools]
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embed, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [url, part] = process.argv.slice(2);
const baseURL = `${url}/v1`;
const openai = createOpenAI({ baseURL, apiKey: "tiles" });
const tiles = createOpenAICompatible({ name: "tiles", baseURL, apiKey: "tiles", supportsStructuredOutputs: true });
const models = [openai.chat("m"), openai.responses("m"), tiles.chatModel("m")];
const Person = z.object({ name: z.string().max(12), age: z.int().min(0).max(150), likes_tea: z.boolean() });
const greedy = { temperature: 0, maxRetries: 0 };

async function words(model) {
  const messages = [
    { role: "user", content: "My name is Ada." },
    { role: "assistant", content: "Nice to meet you, Ada!" },
    { role: "user", content: "What is my name?" },
  ];
  const whole = await generateText({ ...greedy, model, messages });
  assert.match(whole.text, /Ada/);
  assert.ok(whole.usage.outputTokens > 0);

  const stream = streamText({ ...greedy, model, messages });
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  assert.equal(text, whole.text);

  const object = await generateText({ ...greedy, model, prompt: "Hello!", output: Output.object({ schema: Person }) });
  assert.ok(Person.safeParse(object.output).success);
}

async function tools(model) {
  const asked = [];
  const get_weather = tool({
    description: "Get the weather of a city",
    inputSchema: z.object({ city: z.string().max(12) }),
    execute: async ({ city }) => {
      asked.push(city);
      return "sunny";
    },
  });
  const whole = await generateText({
    ...greedy,
    model,
    prompt: "Hello!",
    tools: { get_weather },
    toolChoice: "required",
  });
  assert.equal(whole.toolCalls[0].toolName, "get_weather");
  assert.equal(whole.toolResults[0].output, "sunny");
  assert.equal(typeof asked[0], "string");

  const steps = await generateText({
    ...greedy,
    model,
    prompt: "Hello!",
    tools: { get_weather },
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? "none" : "required" }),
  });
  assert.equal(steps.steps.length, 2);
  assert.equal(steps.steps[0].toolResults[0].output, "sunny");
  assert.ok(steps.text);

  const stream = streamText({ ...greedy, model, prompt: "Hello!", tools: { get_weather }, toolChoice: "required" });
  for await (const _ of stream.fullStream);
  assert.deepEqual((await stream.toolCalls)[0].input, whole.toolCalls[0].input);
}

for (const model of models) await (part === "tools" ? tools(model) : words(model));
if (part !== "tools") {
  const { embedding } = await embed({ model: openai.embedding("m"), value: "Hello" });
  assert.ok(embedding.length > 0);
}
console.log("all is well");
