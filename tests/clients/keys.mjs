// The `openai` and `@anthropic-ai/sdk` packages for Node, unmodified, with a virtual key.
//
// Environment: BASE_URL, KEY (for `openai-chat/text`, `openai-responses/text` and `anthropic/*`).

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const { BASE_URL, KEY } = process.env;
const HELLO = 'Hello, "wörld" \n😀';
const ASK = [{ role: "user", content: "hi" }];
const openai = new OpenAI({ baseURL: BASE_URL, apiKey: KEY, maxRetries: 0 });
const claude = new Anthropic({ baseURL: BASE_URL.replace(/\/v1$/, ""), apiKey: KEY, maxRetries: 0 });

const listed = (await openai.models.list()).data.map((model) => model.id);
assert.deepEqual(new Set(listed), new Set(["anthropic/text", "openai-chat/text", "openai-responses/text"]));

for (const model of ["openai-chat/text", "anthropic/text"]) {
  const answer = await openai.chat.completions.create({ model, messages: ASK });
  assert.equal(answer.choices[0].message.content, HELLO);
  let text = "";
  for await (const chunk of await openai.chat.completions.create({ model, messages: ASK, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(text, HELLO);
  assert.equal((await openai.responses.create({ model, input: "hi" })).output_text, HELLO);
  const stream = claude.messages.stream({ model, max_tokens: 99, messages: ASK });
  assert.equal((await stream.finalMessage()).content[0].text, HELLO);
}

await assert.rejects(openai.chat.completions.create({ model: "gemini/text", messages: ASK }), (error) => {
  assert(error instanceof OpenAI.PermissionDeniedError);
  assert.equal(error.code, "model_not_allowed");
  return true;
});
await assert.rejects(claude.messages.create({ model: "gemini/text", max_tokens: 9, messages: ASK }), (error) => {
  assert(error instanceof Anthropic.PermissionDeniedError);
  return true;
});
