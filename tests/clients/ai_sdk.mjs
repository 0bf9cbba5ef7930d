// Vercel's AI SDK with its OpenAI providers, unmodified: majors 7, 6 and 5.
//
// Environment: BASE_URL, TOKEN (an admin token), SMITH (its model asks for tools until it is given
// a result), SMITH_TOKEN.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAI as createOpenAI6 } from "@ai-sdk/openai-6";
import { createOpenAI as createOpenAI5 } from "@ai-sdk/openai-5";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import * as ai7 from "ai";
import * as ai6 from "ai-6";
import * as ai5 from "ai-5";
import { z } from "zod";

const { BASE_URL, TOKEN, SMITH, SMITH_TOKEN } = process.env;
const HELLO = 'Hello, "wörld" \n😀';
const Person = z.object({ name: z.string(), age: z.number().int() });
let checks = 0;

const check = (actual, expected, about) => {
  assert.deepEqual(actual, expected, about);
  checks += 1;
};
const versionOf = (name) =>
  JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;

// Whoever asks: a smith by its own token or by an admin's, or nobody's model at a provider.
const smith = { baseURL: BASE_URL, apiKey: SMITH_TOKEN, headers: { "IC-Api-Version": "2026-05-01" } };
const admin = { baseURL: BASE_URL, apiKey: TOKEN, headers: { "IC-Smith-Id": SMITH } };
const bare = { baseURL: BASE_URL, apiKey: TOKEN };

async function texts(ai, about, model) {
  const whole = await ai.generateText({ model, prompt: "hi", maxRetries: 0 });
  check([whole.text, whole.finishReason, whole.usage.totalTokens], [HELLO, "stop", 30], about);
  const parts = [];
  const streamed = ai.streamText({ model, prompt: "hi", maxRetries: 0 });
  for await (const part of streamed.fullStream) parts.push(part.type);
  check(await streamed.text, HELLO, about);
  check(await streamed.finishReason, "stop", about);
  for (const part of ["text-start", "text-delta", "text-end", "finish"]) assert(parts.includes(part), `${about}: ${part}`);
  assert(parts.indexOf("text-start") < parts.indexOf("text-delta"), about);
}

// The client's own tool: the model asks twice at once, and answers once it is told.
async function tools(ai, about, model, providerOptions) {
  const asked = [];
  const weather = ai.tool({
    description: "The weather of a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      asked.push(city);
      return "mild";
    },
  });
  const options = { model, providerOptions, prompt: "hi", tools: { get_weather: weather }, stopWhen: ai.stepCountIs(4), maxRetries: 0 };
  const whole = await ai.generateText(options);
  check([whole.text, whole.steps.length, asked.sort()], [HELLO, 2, ["Paris", "Rome"]], about);
  asked.length = 0;
  const streamed = ai.streamText(options);
  check(await streamed.text, HELLO, about);
  check(asked.sort(), ["Paris", "Rome"], about);
}

async function objects(ai, about, model) {
  const whole = await ai.generateObject({ model, prompt: "hi", schema: Person, maxRetries: 0 });
  check(whole.object, { name: "Ada", age: 36 }, about);
  const streamed = ai.streamObject({ model, prompt: "hi", schema: Person, maxRetries: 0 });
  let grown;
  for await (const partial of streamed.partialObjectStream) grown = partial;
  check(grown, { name: "Ada", age: 36 }, about);
  check(await streamed.object, grown, about);
}

async function errors(ai, about, model) {
  await assert.rejects(ai.generateText({ model, prompt: "hi", maxRetries: 0 }), (error) => {
    check(error.statusCode, 404, about);
    return true;
  });
}

// The provider stalls in mid-answer.
async function aborts(ai, about, model) {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 200);
  const streamed = ai.streamText({ model, prompt: "hi", maxRetries: 0, abortSignal: controller.signal, onError() {} });
  const parts = [];
  for await (const part of streamed.fullStream) parts.push(part.type);
  assert(parts.includes("abort"), `${about}: ${parts}`);
  checks += 1;
}

// A conversation whose earlier turns go as references to what is kept here.
async function history(ai, about, model) {
  const first = await ai.generateText({ model, prompt: "My name is Ada.", maxRetries: 0 });
  const messages = [{ role: "user", content: "My name is Ada." }, ...first.response.messages, { role: "user", content: "Who am I?" }];
  const second = await ai.generateText({ model, messages, maxRetries: 0 });
  check(second.text, HELLO, about);
}

async function drive(ai, name, createOpenAI) {
  for (const [who, settings, prefix] of [
    ["a smith's token", smith, "anthropic"],
    ["an admin's token", admin, "gemini"],
    ["no smith", bare, "openai-chat"],
  ]) {
    const provider = createOpenAI(settings);
    for (const wire of ["responses", "chat"]) {
      const about = `${name}, ${wire}, ${who}`;
      const model = (id) => provider[wire](`${prefix}/${id}`);
      await texts(ai, about, model("text"));
      // Where nothing is kept, nothing can be referred to.
      await tools(ai, about, model("loop"), settings === bare ? { openai: { store: false } } : undefined);
      await objects(ai, about, model("structured"));
      await errors(ai, about, model("status-404"));
      await aborts(ai, about, model("fault-stall"));
      if (wire === "responses" && settings !== bare) await history(ai, about, model("text"));
    }
  }
  // No id at all is the smith's own model, which asks for tools first.
  const own = createOpenAI(smith).responses("");
  await tools(ai, `${name}, the smith's model`, own);
}

await drive(ai7, "ai 7", createOpenAI);
await drive(ai6, "ai 6", createOpenAI6);
await drive(ai5, "ai 5", createOpenAI5);
const compatible = createOpenAICompatible({ name: "smithgate", includeUsage: true, supportsStructuredOutputs: true, ...admin });
await texts(ai7, "openai-compatible", compatible("anthropic/text"));
await tools(ai7, "openai-compatible", compatible("anthropic/loop"));
await objects(ai7, "openai-compatible", compatible("anthropic/structured"));
const thread = createOpenAICompatible({ name: "smithgate", ...admin, headers: { ...admin.headers, "IC-Thread-Id": "thr_ai_sdk" } });
for (const prompt of ["one", "two"]) {
  const { text } = await ai7.generateText({ model: thread("anthropic/text"), prompt, maxRetries: 0 });
  check(text, HELLO, "a thread");
}

const versions = ["ai", "ai-6", "ai-5", "@ai-sdk/openai", "@ai-sdk/openai-compatible"].map((name) => `${name} ${versionOf(name)}`);
console.log(`${versions.join(", ")}: ${checks} checks`);
