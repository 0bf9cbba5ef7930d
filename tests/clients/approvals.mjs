// The AI SDK and the `openai` package for Node, unmodified, decide on approvals over Responses.
//
// Environment: BASE_URL, SMITH_TOKEN (of a smith that has the tools of mcp_workshop.py).

import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const { BASE_URL, SMITH_TOKEN } = process.env;
const SCRIPT = 'measure {"thing": "x"}\n---\nmelt {"thing": "y"}';
const provider = createOpenAI({ baseURL: BASE_URL, apiKey: SMITH_TOKEN });
const model = provider.responses("");
let checks = 0;
const check = (holds, about) => {
  assert(holds, JSON.stringify(about, null, 1));
  checks += 1;
};

for (const streamed of [false, true]) {
  const ask = async (messages) => {
    if (!streamed) return generateText({ model, messages, maxRetries: 0 });
    const result = streamText({ model, messages, maxRetries: 0 });
    await result.consumeStream();
    return { content: await result.content, text: await result.text, response: await result.response };
  };
  const messages = [{ role: "user", content: SCRIPT }];
  const asked = await ask(messages);
  const measured = asked.content.find((part) => part.type === "tool-result");
  check(JSON.stringify(measured?.output ?? "").includes("x: 12 cm"), asked.content);
  const request = asked.content.find((part) => part.type === "tool-approval-request");
  check(request?.approvalId.includes("::"), asked.content);
  const approval = { type: "tool-approval-response", approvalId: request.approvalId, approved: true, providerExecuted: true };
  messages.push(...asked.response.messages, { role: "tool", content: [approval] });
  const answer = await ask(messages);
  check(answer.text.includes("y is molten"), answer.content);
}

const client = new OpenAI({ baseURL: BASE_URL, apiKey: SMITH_TOKEN, maxRetries: 0 });
const asked = await client.responses.create({ input: SCRIPT });
const request = asked.output.find((item) => item.type === "mcp_approval_request");
const response = { type: "mcp_approval_response", approval_request_id: request.id, approve: true };
const kinds = [];
let text = "";
for await (const event of await client.responses.create({ input: [response], stream: true })) {
  kinds.push(event.type);
  if (event.type === "response.output_text.delta") text += event.delta;
}
check(text.includes("y is molten") && kinds.includes("response.mcp_call.completed"), kinds);
console.log(`approvals: ${checks} checks`);
