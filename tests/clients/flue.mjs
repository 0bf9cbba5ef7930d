// Flue and the provider package that it stands on, unmodified, on Chat Completions; and the current
// release of that package on both of OpenAI's wires.
//
// Environment: BASE_URL, TOKEN (an admin token), SMITH, SMITH_TOKEN.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createProvider } from "@earendil-works/pi-ai";
import { openAICompletionsApi } from "@earendil-works/pi-ai/api/openai-completions.lazy";
import { defineTool, init, useModel, useTool } from "@flue/runtime";
import { start } from "@flue/runtime/node";
import * as v from "valibot";
import { normalizeContext } from "pi-ai-1";
import { stream as completions } from "pi-ai-1/api/openai-completions";
import { stream as responses } from "pi-ai-1/api/openai-responses";

const { BASE_URL, TOKEN, SMITH, SMITH_TOKEN } = process.env;
const HELLO = 'Hello, "wörld" \n😀';
let checks = 0;
const check = (actual, expected, about) => {
  assert.deepEqual(actual, expected, about);
  checks += 1;
};
const modelOf = (id, api, headers) => ({
  id, name: id, api, provider: "smithgate", baseUrl: BASE_URL, headers, reasoning: false, input: ["text"],
  cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 }, contextWindow: 100_000, maxTokens: 0,
});

// An agent of Flue's whose model is a smith; the tool is Flue's own.
const asked = [];
const weather = defineTool({
  name: "get_weather",
  description: "The weather of a city",
  input: v.object({ city: v.string() }),
  run({ data }) {
    asked.push(data.city);
    return "mild";
  },
});
function Forecaster() {
  useModel("smithgate/anthropic/loop");
  useTool(weather);
  return "Be brief.";
}
const headers = { "IC-Api-Version": "2026-05-01", "IC-Smith-Id": SMITH };
const flue = await start({
  agents: [Forecaster],
  providers: [createProvider({
    id: "smithgate",
    auth: { apiKey: { name: "Smithgate", resolve: async () => ({ auth: { apiKey: TOKEN } }) } },
    models: [modelOf("anthropic/loop", "openai-completions", headers)],
    api: openAICompletionsApi(),
  })],
});
const agent = init(Forecaster);
const reply = await agent.read(await agent.dispatch("hi"));
// Flue joins what the model said before it called and after.
check([reply.text, asked.sort()], [`Looking.\n\n${HELLO}`, ["Paris", "Rome"]], "flue");
// What was called stays in the history, with no tools of the client's mounted later.
check((await agent.read(await agent.dispatch("and again"))).text, HELLO, "flue, again");
await flue.stop();

// The provider package by itself.
for (const [api, stream] of [["openai-completions", completions], ["openai-responses", responses]]) {
  const model = modelOf("anthropic/thinking_tools", api);
  const user = { role: "user", content: "hi", timestamp: Date.now() };
  const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const tools = [{ name: "get_weather", description: "The weather of a city", parameters }];
  const first = stream(model, normalizeContext({ systemPrompt: "Be brief.", messages: [user], tools }), { apiKey: SMITH_TOKEN });
  const kinds = [];
  for await (const event of first) kinds.push(event.type);
  const called = await first.result();
  check([called.stopReason, called.errorMessage], ["toolUse", undefined], api);
  const calls = called.content.filter((part) => part.type === "toolCall");
  check(calls.map((call) => [call.name, call.arguments]), [["get_weather", { city: "Paris" }]], api);
  assert(kinds.includes("thinking_delta") && kinds.includes("toolcall_end"), kinds);
  const results = calls.map((call) => ({
    role: "toolResult", toolCallId: call.id, toolName: call.name, content: [{ type: "text", text: "mild" }], isError: false, timestamp: Date.now(),
  }));
  const next = stream(modelOf("anthropic/text", api), normalizeContext({ messages: [user, called, ...results] }), { apiKey: SMITH_TOKEN });
  const answer = await next.result();
  check(answer.content.filter((part) => part.type === "text").map((part) => part.text).join(""), HELLO, api);
  check([answer.stopReason, answer.usage.totalTokens], ["stop", 30], api);
}

const version = (name) => JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
const versions = ["@flue/runtime", "@earendil-works/pi-ai", "pi-ai-1"].map((name) => `${name} ${version(name)}`);
console.log(`${versions.join(", ")}: ${checks} checks`);
