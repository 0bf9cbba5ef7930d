// The `@anthropic-ai/sdk` package for Node, unmodified, on Messages.
//
// Environment: BASE_URL (with /v1, which this package adds itself), TOKEN (an admin token), SMITH (its
// model asks for tools until it is given a result), SMITH_TOKEN, WIRES (the providers' names, by comma).

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const { TOKEN, SMITH, SMITH_TOKEN } = process.env;
const BASE_URL = process.env.BASE_URL.replace(/\/v1$/, "");
const WIRES = process.env.WIRES.split(",");
const HELLO = 'Hello, "wörld" \n😀';
const ASK = [{ role: "user", content: "hi" }];
const TOOLS = [
  {
    name: "get_weather",
    description: "The weather of a city",
    input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
];
let checks = 0;

const check = (actual, expected, about) => {
  assert.deepEqual(actual, expected, about);
  checks += 1;
};
const client = (options) => new Anthropic({ baseURL: BASE_URL, apiKey: TOKEN, maxRetries: 0, ...options });
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
const textOf = (message) =>
  message.content
    .filter((block) => block.type === "text")
    .map((block) => block.text)
    .join("");

async function texts(api) {
  for (const wire of WIRES) {
    const asked = { model: `${wire}/text`, max_tokens: 100, messages: ASK };
    const whole = await api.messages.create(asked);
    check([textOf(whole), whole.stop_reason, whole.usage.output_tokens], [HELLO, "end_turn", 9], wire);
    check(whole._request_id.length > 0, true, wire);
    let said = "";
    const stream = api.messages.stream(asked).on("text", (text) => (said += text));
    const final = await stream.finalMessage();
    check([said, textOf(final), final.stop_reason], [HELLO, HELLO, "end_turn"], wire);
    check(final.usage.output_tokens, 9, wire);
    const kinds = [];
    for await (const event of await api.messages.create({ ...asked, stream: true })) kinds.push(event.type);
    check([kinds[0], kinds.at(-1)], ["message_start", "message_stop"], wire);
    const beta = api.beta.messages.stream({ ...asked, betas: ["context-1m-2025-08-07"] });
    check(textOf(await beta.finalMessage()), HELLO, wire);
  }
}

async function toolLoop(api, options) {
  for (const streamed of [false, true]) {
    const messages = [...ASK];
    const asked = [];
    let last;
    for (let turn = 0; turn < 4; turn += 1) {
      const call = { max_tokens: 4000, messages, tools: TOOLS, ...options };
      last = streamed ? await api.messages.stream(call).finalMessage() : await api.messages.create(call);
      if (last.stop_reason !== "tool_use") break;
      const uses = last.content.filter((block) => block.type === "tool_use");
      asked.push(...uses.map((use) => use.input.city));
      const results = uses.map((use) => ({ type: "tool_result", tool_use_id: use.id, content: "mild" }));
      messages.push({ role: "assistant", content: last.content }, { role: "user", content: results });
    }
    check(asked, ["Paris", "Rome"], JSON.stringify(options));
    check(textOf(last), HELLO, JSON.stringify(options));
  }
}

async function errors(api) {
  const ask = { max_tokens: 10, messages: ASK };
  const create = (model, from = api) => () => from.messages.create({ model, ...ask });
  const wrong = await raises(Anthropic.AuthenticationError, create("anthropic/text", client({ apiKey: "no" })));
  check([wrong.status, wrong.error.error.type], [401, "authentication_error"]);
  check(wrong.requestID.length > 0, true);
  const bad = await raises(Anthropic.BadRequestError, () =>
    api.messages.create({ model: "openai-chat/text", max_tokens: 10, messages: [] }),
  );
  check(bad.error.error.details, { error_code: "invalid_request", param: "messages" });
  await raises(Anthropic.NotFoundError, create("anthropic/status-404"));
  await raises(Anthropic.RateLimitError, create("openai-chat/status-429"));
  await raises(Anthropic.InternalServerError, create("anthropic/status-529"));
  const inStream = await raises(Anthropic.APIError, () =>
    api.messages.stream({ model: "openai-chat/fault-in-stream", ...ask }).finalMessage(),
  );
  check(`${inStream}`.includes("on fire"), true, `${inStream}`);
}

const api = client();
await texts(api);
for (const wire of WIRES) {
  await toolLoop(api, { model: `${wire}/loop` });
  await toolLoop(api, { model: `${wire}/loop`, thinking: { type: "adaptive" } });
  const asked = { model: `${wire}/text`, messages: ASK, tools: TOOLS };
  check((await api.messages.countTokens(asked)).input_tokens > 20, true, wire);
}
await errors(api);
await toolLoop(client({ apiKey: SMITH_TOKEN }), { model: "" });
const named = client({ apiKey: null, authToken: TOKEN, defaultHeaders: { "IC-Smith-Id": SMITH } });
await toolLoop(named, { model: "" });
console.log(`@anthropic-ai/sdk: ${checks} checks`);
