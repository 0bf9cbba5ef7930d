// The `openai` package for Node, unmodified, on Chat Completions.
//
// Environment: BASE_URL, TOKEN (an admin token), SMITH (its model asks for tools until it is given
// a result), SMITH_TOKEN, WIRES (the providers' names, by comma).

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { VERSION } from "openai/version";
import { z } from "zod";

const { BASE_URL, TOKEN, SMITH, SMITH_TOKEN } = process.env;
const WIRES = process.env.WIRES.split(",");
const HELLO = 'Hello, "wörld" \n😀';
const ASK = [{ role: "user", content: "hi" }];
const Person = z.object({ name: z.string(), age: z.number().int() });
let checks = 0;

const check = (actual, expected, about) => {
  assert.deepEqual(actual, expected, about);
  checks += 1;
};
const client = (options) => new OpenAI({ baseURL: BASE_URL, apiKey: TOKEN, maxRetries: 0, ...options });
const raises = async (errorClass, call) => {
  try {
    await call();
  } catch (error) {
    assert(error instanceof errorClass, `${error?.constructor?.name} is no ${errorClass.name}: ${error}`);
    checks += 1;
    return error;
  }
  throw new Error(`nothing raised instead of ${errorClass.name}`);
};
const said = async (stream) => {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  return text;
};

async function texts(api) {
  for (const wire of WIRES) {
    const model = `${wire}/text`;
    const whole = await api.chat.completions.create({ model, messages: ASK });
    check(whole.choices[0].message.content, HELLO, wire);
    check(whole.usage.total_tokens, 30, wire);
    check(await said(await api.chat.completions.create({ model, messages: ASK, stream: true })), HELLO, wire);
    const helper = api.chat.completions.stream({ model, messages: ASK, stream_options: { include_usage: true } });
    check(await helper.finalContent(), HELLO, wire);
    check((await helper.totalUsage()).total_tokens, 30, wire);
    const { response, request_id } = await api.chat.completions.create({ model, messages: ASK }).withResponse();
    check([response.status, request_id.length > 0], [200, true], wire);
  }
}

async function toolLoops(api) {
  for (const wire of WIRES) {
    for (const stream of [false, true]) {
      const asked = [];
      const runner = api.chat.completions.runTools({
        model: `${wire}/loop`,
        messages: ASK,
        stream,
        tools: [
          zodFunction({
            name: "get_weather",
            description: "The weather of a city",
            parameters: z.object({ city: z.string() }),
            function: ({ city }) => {
              asked.push(city);
              return `mild in ${city}`;
            },
          }),
        ],
      });
      check(await runner.finalContent(), HELLO, wire);
      check(asked, ["Paris", "Rome"], wire);
    }
  }
}

async function structured(api) {
  const response_format = zodResponseFormat(Person, "person");
  for (const wire of WIRES) {
    const model = `${wire}/structured`;
    const parsed = await api.chat.completions.parse({ model, messages: ASK, response_format });
    check(parsed.choices[0].message.parsed, { name: "Ada", age: 36 }, wire);
    const final = await api.chat.completions.stream({ model, messages: ASK, response_format }).finalChatCompletion();
    check(final.choices[0].message.parsed, { name: "Ada", age: 36 }, wire);
  }
}

async function errors(api) {
  const create = (options) => api.chat.completions.create({ messages: ASK, ...options });
  const bad = client({ apiKey: "tha_live_wrong" });
  const denied = await raises(OpenAI.AuthenticationError, () => bad.models.list());
  check(denied.code, "unauthenticated");
  const empty = await raises(OpenAI.BadRequestError, () => create({ model: "anthropic/text", messages: [] }));
  check(empty.param, "messages");
  await raises(OpenAI.NotFoundError, () => api.models.retrieve("no/such"));
  for (const wire of WIRES) {
    for (const [code, errorClass] of [
      [400, OpenAI.BadRequestError],
      [403, OpenAI.InternalServerError],
      [429, OpenAI.RateLimitError],
      [500, OpenAI.InternalServerError],
    ]) {
      for (const stream of [false, true]) {
        const error = await raises(errorClass, () => create({ model: `${wire}/status-${code}`, stream }));
        if (code === 429) check(error.headers.get("retry-after"), "1", wire);
        if (code === 403) check(error.code, "model_request_failed", wire);
      }
    }
    await raises(OpenAI.APIError, async () => said(await create({ model: `${wire}/fault-half`, stream: true })));
  }
}

async function retries() {
  for (const wire of WIRES) {
    const started = performance.now();
    const stream = await client({ maxRetries: 2 }).chat.completions.create({
      model: `${wire}/flaky-1@node`,
      messages: ASK,
      stream: true,
    });
    check(await said(stream), HELLO, wire);
    const waited = performance.now() - started;
    check(waited >= 1000, true, `${wire} waited ${waited} ms`);
  }
}

async function smiths(api) {
  for (const [chosen, options] of [
    [api, { headers: { "IC-Smith-Id": SMITH } }],
    [client({ apiKey: SMITH_TOKEN }), {}],
  ]) {
    const tool = zodFunction({
      name: "get_weather",
      parameters: z.object({ city: z.string() }),
      function: () => "mild",
    });
    const runner = chosen.chat.completions.runTools({ model: "", messages: ASK, stream: true, tools: [tool] }, options);
    check(await runner.finalContent(), HELLO);
  }
}

async function aborts(api) {
  const stream = await api.chat.completions.create({ model: "openai-chat/fault-endless", messages: ASK, stream: true });
  let chunks = 0;
  for await (const _ of stream) {
    chunks += 1;
    if (chunks === 3) stream.controller.abort();
  }
  check(chunks >= 3, true);
}

const api = client();
await texts(api);
await toolLoops(api);
await structured(api);
await errors(api);
await retries();
await smiths(api);
await aborts(api);
const listed = [];
for await (const model of api.models.list()) listed.push(model.id);
check(WIRES.every((wire) => listed.includes(`${wire}/text`)), true, listed);
console.log(`openai ${VERSION} for Node: ${checks} checks`);
