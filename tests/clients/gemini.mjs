// The `@google/genai` package for Node, unmodified, on Gemini's wire.
//
// Environment: BASE_URL (with /v1, in whose place this package puts a version of its own), TOKEN (an
// admin token), SMITH (its model asks for tools until it is given a result), SMITH_TOKEN, WIRES (the
// providers' names, by comma).

import assert from "node:assert/strict";
import { ApiError, FunctionCallingConfigMode, GoogleGenAI, Type } from "@google/genai";

const { TOKEN, SMITH, SMITH_TOKEN } = process.env;
const BASE_URL = process.env.BASE_URL.replace(/\/v1$/, "");
const WIRES = process.env.WIRES.split(",");
const HELLO = 'Hello, "wörld" \n😀';
const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const WEATHER = {
  name: "get_weather",
  description: "The weather of a city",
  parameters: { type: Type.OBJECT, properties: { city: { type: Type.STRING } }, required: ["city"] },
};
let checks = 0;

const check = (actual, expected, about) => {
  assert.deepEqual(actual, expected, about);
  checks += 1;
};
const client = (apiKey = TOKEN, httpOptions = {}) =>
  new GoogleGenAI({ apiKey, httpOptions: { baseUrl: BASE_URL, ...httpOptions } });
const raises = async (status, call) => {
  try {
    await call();
  } catch (error) {
    assert(error instanceof ApiError, `${error?.constructor?.name}: ${error}`);
    check(error.status, status, `${error}`);
    return error;
  }
  throw new Error(`nothing raised instead of ${status}`);
};
const all = async (stream) => {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return pieces;
};
const said = (pieces) => pieces.map((piece) => piece.text ?? "").join("");

async function texts(api) {
  for (const wire of WIRES) {
    const asked = { model: `${wire}/text`, contents: "hi" };
    const whole = await api.models.generateContent(asked);
    check([whole.text, whole.candidates[0].finishReason], [HELLO, "STOP"], wire);
    check(whole.usageMetadata.totalTokenCount, 30, wire);
    const pieces = await all(await api.models.generateContentStream(asked));
    check([said(pieces), pieces.at(-1).candidates[0].finishReason], [HELLO, "STOP"], wire);
    check(pieces.at(-1).usageMetadata.totalTokenCount, 30, wire);
    const shown = { inlineData: { mimeType: "image/png", data: PIXEL } };
    const seen = await api.models.generateContent({ ...asked, contents: [shown, "What is this?"] });
    check(seen.text, HELLO, wire);
    const chat = api.chats.create({ model: asked.model });
    check((await chat.sendMessage({ message: "hi" })).text, HELLO, wire);
    check(said(await all(await chat.sendMessageStream({ message: "again" }))), HELLO, wire);
    check((await chat.sendMessage({ message: "and again" })).text, HELLO, wire);
    const roles = chat.getHistory(true).map((content) => content.role);
    check([roles.filter((role) => role === "user").length, roles.at(-1)], [3, "model"], wire);
  }
}

async function toolLoop(api, model, config = {}) {
  for (const streamed of [false, true]) {
    const contents = [{ role: "user", parts: [{ text: "hi" }] }];
    const asked = [];
    let last;
    for (let turn = 0; turn < 4; turn += 1) {
      const tools = [{ functionDeclarations: [WEATHER] }];
      const call = { model, contents, config: { tools, ...config } };
      last = streamed
        ? await all(await api.models.generateContentStream(call))
        : [await api.models.generateContent(call)];
      const calls = last.flatMap((piece) => piece.functionCalls ?? []);
      if (calls.length === 0) break;
      asked.push(...calls.map((call) => call.args.city));
      const parts = last.flatMap((piece) => piece.candidates[0].content.parts ?? []);
      const results = calls.map(({ id, name }) => ({
        functionResponse: { id, name, response: { output: "mild" } },
      }));
      contents.push({ role: "model", parts }, { role: "user", parts: results });
    }
    check(asked, ["Paris", "Rome"], `${model} ${JSON.stringify(config)}`);
    check(said(last), HELLO, model);
  }
}

async function structured(api) {
  for (const wire of WIRES) {
    const properties = { name: { type: Type.STRING }, age: { type: Type.INTEGER } };
    const responseSchema = { type: Type.OBJECT, properties, required: ["name", "age"] };
    const config = { responseMimeType: "application/json", responseSchema };
    const answer = await api.models.generateContent({ model: `${wire}/structured`, contents: "hi", config });
    check(JSON.parse(answer.text).age, 36, wire);
  }
}

async function errors(api) {
  const ask = (model, from = api, config = undefined) => () =>
    from.models.generateContent({ model, contents: "hi", config });
  const wrong = await raises(401, ask("gemini/text", client("no")));
  check(JSON.parse(wrong.message).error.status, "UNAUTHENTICATED");
  const search = { tools: [{ googleSearch: {} }] };
  const refused = await raises(400, ask("openai-chat/text", api, search));
  check(refused.message.includes("googleSearch"), true, refused.message);
  const bad = { toolConfig: { functionCallingConfig: { mode: FunctionCallingConfigMode.ANY, allowedFunctionNames: ["x"] } } };
  await raises(400, ask("openai-chat/text", api, bad));
  await raises(404, ask("gemini/status-404"));
  await raises(429, ask("openai-chat/status-429"));
  await raises(503, ask("anthropic/status-529"));
  const inStream = await raises(502, async () =>
    all(await api.models.generateContentStream({ model: "openai-chat/fault-in-stream", contents: "hi" })),
  );
  check(inStream.message.includes("on fire"), true, inStream.message);
}

async function models(api) {
  const listed = [];
  for await (const model of await api.models.list({ config: { pageSize: 2 } })) listed.push(model.name);
  check(listed.length > 2 && listed.every((name) => name.startsWith("models/")), true, `${listed}`);
  check((await api.models.get({ model: listed[0] })).name, listed[0]);
}

const api = client();
await texts(api);
for (const wire of WIRES) {
  await toolLoop(api, `${wire}/loop`);
  await toolLoop(api, `${wire}/loop`, { thinkingConfig: { includeThoughts: true } });
  const counted = await api.models.countTokens({ model: `${wire}/text`, contents: "word ".repeat(40) });
  check(counted.totalTokens > 20, true, wire);
}
await structured(api);
await errors(api);
await models(api);
await toolLoop(client(SMITH_TOKEN), "smith");
await toolLoop(client(TOKEN, { headers: { "IC-Smith-Id": SMITH } }), "smith");
console.log(`@google/genai: ${checks} checks`);
