// The packages of this folder against a running gateway.
//
// Environment: GATEWAY (without /v1), TOKEN (an admin token), SMITH, SMITH_TOKEN.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createSmithgate, approvalResponseMessages, approvalWireItem, buildApprovalId, getApprovalRequests, parseApprovalId } from "@smithgate/ai-sdk";
import { parseSmithgateSSE, pipeSmithgateRun } from "@smithgate/ai-sdk/native";
import { approvalsSettled, smithgateTransport } from "@smithgate/ai-sdk/react";
import { smithgateModel } from "@smithgate/eve";
import { smithgateProvider } from "@smithgate/flue";
import { agentsCreate, agentsList, API_VERSION, createSmithgateClient, followRun, framesOf, LAST, smithsCreate, smithsGet, SmithgateError, streamRun } from "@smithgate/sdk";
import { zAgentOut } from "@smithgate/sdk/zod";
import { createModels } from "@earendil-works/pi-ai";
import { generateText, readUIMessageStream, streamText } from "ai";

const { GATEWAY, TOKEN, SMITH, SMITH_TOKEN } = process.env;
const HELLO = 'Hello, "wörld" \n😀';
const run = { baseUrl: GATEWAY, apiKey: SMITH_TOKEN, smithId: SMITH };
const input = [{ role: "user", content: "hi" }];
const collect = async (stream) => {
  const all = [];
  for await (const one of stream) all.push(one);
  return all;
};

test("sdk: resources are typed, checked and refused with a code", async () => {
  const client = createSmithgateClient({ baseUrl: GATEWAY, apiKey: TOKEN });
  const made = await agentsCreate({ client, body: { name: "Desk" } });
  assert.equal(made.response.status, 201);
  assert.equal(zAgentOut.parse(made.data).name, "Desk");
  const listed = await agentsList({ client, query: { limit: 1 } });
  assert.equal(listed.data.data[0].id, made.data.id);
  const missing = await smithsGet({ client, path: { id: "smt_none" } });
  assert.equal(missing.response.status, 404);
  assert.equal(missing.error.error.code, "not_found");
  assert.equal(API_VERSION, "2026-05-01");
});

test("sdk: a run is streamed, and followed from where it was left", async () => {
  const frames = await collect(streamRun(run, { input }));
  assert.deepEqual(frames.map((frame) => frame.seq), frames.map((_, at) => at));
  assert.equal(frames[0].event, "run.started");
  assert.ok(LAST.has(frames.at(-1).event));
  const said = frames.filter((frame) => frame.event === "message.delta").map((frame) => frame.data.delta);
  assert.equal(said.join(""), HELLO);
  const rest = await collect(followRun(run, frames[0].data.run_id, 1));
  assert.deepEqual(rest, frames.slice(2));
  await assert.rejects(collect(streamRun({ ...run, smithId: "smt_none" }, { input })), (error) => {
    assert.ok(error instanceof SmithgateError);
    assert.deepEqual([error.status, error.code], [403, "smith_mismatch"]);
    return true;
  });
});

test("sdk: citations are frames, and line ends may be cut apart", async () => {
  const client = createSmithgateClient({ baseUrl: GATEWAY, apiKey: TOKEN });
  const made = await smithsCreate({ client, body: { external_id: "cites", model: "openai-chat/quirk-chat-annotations" } });
  const own = { ...run, apiKey: TOKEN, smithId: made.data.id };
  const frames = await collect(streamRun(own, { input, stream_options: { include: ["citations"] } }));
  const cited = frames.filter((frame) => frame.event === "message.citation").map((frame) => frame.data.citation);
  assert.ok(cited.length > 0 && cited.every((citation) => citation.url.startsWith("https://")), JSON.stringify(frames));
  const pieces = ["event: message.delta\r\nid: 0\r\ndata: {\"v\":1,\"run_id\":\"r\",\"delta\":\"a\"}\r\n\r", "\n: end\r\n\r\n"];
  const body = new Response(new ReadableStream({
    start(controller) {
      pieces.forEach((piece) => controller.enqueue(new TextEncoder().encode(piece)));
      controller.close();
    },
  })).body;
  assert.deepEqual((await collect(framesOf(body))).map((frame) => frame.data.delta), ["a"]);
});

test("ai-sdk: the smith's own model, another one, and a thread", async () => {
  const baseURL = `${GATEWAY}/v1`;
  const smith = createSmithgate({ apiKey: SMITH_TOKEN, baseURL });
  assert.equal(smith().provider, "smithgate.responses");
  assert.equal((await generateText({ model: smith(), prompt: "hi" })).text, HELLO);
  const named = createSmithgate({ apiKey: TOKEN, smithId: SMITH, baseURL: `${baseURL}/`, threadId: "thr_packages" });
  for (const prompt of ["one", "two"]) {
    assert.equal(await streamText({ model: named("gemini/text"), prompt }).text, HELLO);
  }
  assert.equal((await generateText({ model: smithgateModel({ apiKey: SMITH_TOKEN, baseURL }), prompt: "hi" })).text, HELLO);
});

test("ai-sdk: approvals are split at their first mark, and answered on both forms of the wire", () => {
  assert.deepEqual(parseApprovalId("run_1::call::2"), { runId: "run_1", toolCallId: "call::2" });
  assert.equal(parseApprovalId("run_1"), null);
  assert.equal(buildApprovalId("run_1", "c"), "run_1::c");
  const part = { type: "tool-approval-request", approvalId: "run_1::c", toolCall: { toolName: "mcp.refund", input: { amount: 3 } } };
  const [request] = getApprovalRequests([{ type: "text" }, part, { ...part, approvalId: "other" }]);
  assert.deepEqual([request.toolName, request.runId, request.toolCallId], ["refund", "run_1", "c"]);
  const [asked, answered] = approvalResponseMessages(request, "reject");
  assert.equal(asked.content[0].toolName, "mcp.refund");
  assert.equal(answered.content[0].approved, false);
  assert.deepEqual(approvalWireItem("run_1::c", "approve"), { type: "mcp_approval_response", approval_request_id: "run_1::c", approve: true });
});

test("ai-sdk/native: a run becomes parts, and its end is told; a cut one is unknown", async () => {
  const parts = [];
  const ask = () => fetch(`${GATEWAY}/v1/smiths/${SMITH}/runs`, {
    method: "POST", headers: { authorization: `Bearer ${SMITH_TOKEN}` }, body: JSON.stringify({ input, stream: true }),
  });
  const outcome = await pipeSmithgateRun(await ask(), { write: (part) => parts.push(part.type) });
  assert.deepEqual([outcome.status, outcome.text, outcome.stopReason], ["completed", HELLO, "end_turn"]);
  assert.deepEqual([parts[0], parts.at(-1)], ["text-start", "text-end"]);
  const paused = 'event: approval.required\ndata: {"v":1,"run_id":"run_1","approval_id":"apr_1","tool":"refund","tool_call_id":"c","args":{}}\n\n'
    + ': keep-alive\n\nevent: run.paused\ndata: {"v":1,"run_id":"run_1"}\n\n';
  const waits = await pipeSmithgateRun(new Response(paused), { write() {} });
  assert.deepEqual([waits.status, waits.approvals[0].approvalId], ["paused", "run_1::c"]);
  const cut = await pipeSmithgateRun(new Response(paused.slice(0, 120)), { write() {} });
  assert.equal(cut.status, "unknown");
  assert.equal((await collect(parseSmithgateSSE(new Response(paused).body))).length, 2);
});

test("ai-sdk/react: the transport of a chat", async () => {
  const transport = smithgateTransport({ token: async () => SMITH_TOKEN, baseURL: `${GATEWAY}/v1` });
  const messages = [{ id: "1", role: "user", parts: [{ type: "text", text: "hi" }] }];
  const stream = await transport.sendMessages({ chatId: "c", messages, trigger: "submit-message", messageId: undefined, abortSignal: undefined });
  const [whole] = (await collect(readUIMessageStream({ stream }))).slice(-1);
  assert.equal(whole.parts.find((part) => part.type === "text").text, HELLO);
  assert.equal(await transport.reconnectToStream({ chatId: "c" }), null);
  assert.equal(approvalsSettled({ messages }), false);
});

test("flue: a provider of Pi's", async () => {
  const provider = smithgateProvider({ apiKey: SMITH_TOKEN, baseURL: `${GATEWAY}/v1`, models: { "anthropic/text": {} } });
  const models = createModels();
  models.setProvider(provider);
  const model = models.getModel("smithgate", "anthropic/text");
  const context = { messages: [{ role: "user", content: "hi", timestamp: Date.now() }] };
  const answer = await models.complete(model, context);
  assert.equal(answer.content.filter((part) => part.type === "text").map((part) => part.text).join(""), HELLO);
  assert.throws(() => smithgateProvider({ apiKey: "k", models: { "": {} } }));
});
