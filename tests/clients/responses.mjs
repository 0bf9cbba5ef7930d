// The `openai` package for Node, unmodified, on Responses and Conversations.
//
// Environment: BASE_URL, TOKEN (an admin token), SMITH (its model asks for tools until it is given a
// result), WIRES (the providers' names, by comma).

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const { BASE_URL, TOKEN, SMITH, WIRES } = process.env;
const HELLO = 'Hello, "wörld" \n😀';
const options = { baseURL: BASE_URL, apiKey: TOKEN, maxRetries: 0 };
const gateway = new OpenAI(options);
const smith = new OpenAI({ ...options, defaultHeaders: { "IC-Smith-Id": SMITH } });
const tools = [{
  type: "function", name: "get_weather", description: "The weather of a city", strict: true,
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
}];
const Person = z.object({ name: z.string(), age: z.number() });
let checks = 0;
const check = (holds, about) => {
  assert(holds, JSON.stringify(about));
  checks += 1;
};
async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  check(events.every((event, at) => event.sequence_number === at), events);
  return events;
}

for (const wire of WIRES.split(",")) {
  const whole = await gateway.responses.create({ model: `${wire}/text`, input: "hi" });
  check(whole.output_text === HELLO && whole.usage.total_tokens === 30, whole);
  const stream = gateway.responses.stream({ model: `${wire}/text`, input: "hi" });
  let said = "";
  stream.on("response.output_text.delta", (event) => { said += event.delta; });
  const final = await stream.finalResponse();
  check(said === HELLO && final.status === "completed", final);
  const parsed = await gateway.responses.parse({
    model: `${wire}/structured`, input: "hi", text: { format: zodTextFormat(Person, "person") },
  });
  check(parsed.output_parsed.age === 36, parsed);
  const input = [{ role: "user", content: "hi" }];
  const asked = await gateway.responses.create({ model: `${wire}/loop`, input, tools, store: false });
  const calls = asked.output.filter((item) => item.type === "function_call");
  check(calls.length === 2 && JSON.parse(calls[0].arguments).city === "Paris", asked);
  input.push(...asked.output, ...calls.map(({ call_id }) => ({ type: "function_call_output", call_id, output: "mild" })));
  const told = await gateway.responses.create({ model: `${wire}/loop`, input, tools, store: false });
  check(told.output_text === HELLO, told);
}

await assert.rejects(gateway.responses.create({ model: "anthropic/text", input: [{ role: "x" }] }), (error) =>
  error instanceof OpenAI.BadRequestError && error.param === "input[0]");
const half = await collect(await gateway.responses.create({ model: "anthropic/fault-half", input: "hi", stream: true }));
check(half.at(-1).type === "response.failed", half.at(-1));

const first = await smith.responses.create({ model: "anthropic/text", input: "My name is Ada." });
check((await smith.responses.retrieve(first.id)).output_text === HELLO, first);
const asked = [];
for await (const item of smith.responses.inputItems.list(first.id)) asked.push(item);
check(asked[0].content[0].text === "My name is Ada.", asked);
const second = await smith.responses.create({ model: "anthropic/text", input: "And yours?", previous_response_id: first.id });
check(second.previous_response_id === first.id, second);
await smith.responses.delete(first.id);
await assert.rejects(smith.responses.retrieve(first.id), OpenAI.NotFoundError);

const conversation = await smith.conversations.create({ items: [{ type: "message", role: "user", content: "Hello" }] });
await smith.responses.create({ model: "anthropic/text", input: "one", conversation: conversation.id });
const kept = [];
for await (const item of smith.conversations.items.list(conversation.id, { order: "asc", limit: 2 })) kept.push(item.content[0].text);
check(kept.join("|") === ["Hello", "one", HELLO].join("|"), kept);

let made = await smith.responses.create({ model: "anthropic/text", input: "hi", background: true });
for (let tries = 0; tries < 200 && ["queued", "in_progress"].includes(made.status); tries++) {
  await sleep(50);
  made = await smith.responses.retrieve(made.id);
}
check(made.status === "completed" && made.output_text === HELLO, made);
const slow = await smith.responses.create({ model: "anthropic/fault-stall", input: "hi", background: true });
check((await smith.responses.cancel(slow.id)).status === "cancelled", slow);
const all = await collect(await smith.responses.create({ model: "anthropic/text", input: "hi", background: true, stream: true }));
const rest = [];
for await (const event of await smith.responses.retrieve(all[0].response.id, { stream: true, starting_after: 2 })) rest.push(event);
assert.deepEqual(rest, all.slice(3));
console.log(`openai for Node on Responses: ${checks} checks`);
