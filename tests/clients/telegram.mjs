// A Telegram of `telegram-test-api`, where people write and press, and what `grammy`, a library that
// bots are written with, says of the traffic: whether its types know each call (checked by
// TypeScript), and whether its webhook takes a delivery. Each line of the input is a command in JSON,
// each line of the output its answer.
//
// What the package cannot do, and is not done here in its place: it has no files (`getFile`,
// `sendPhoto`, …), no drafts and no `sendChatAction`, which it answers with 500; it delivers to
// webhooks without the secret token that a bot asked for, so bots are to ask for their updates here.
import { execFile } from "node:child_process";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Bot, webhookCallback } from "grammy";
import TelegramServer from "telegram-test-api";

const { PORT, INNER_PORT, HOOK_PORT, TOKEN, OTHER_TOKEN, SECRET } = process.env;
const host = "127.0.0.1";
const telegram = new TelegramServer({ host, port: Number(INNER_PORT), storeTimeout: 3600 });
await telegram.start();

// In front of it: what bots call, as they call it.
const calls = [];
createServer(async (request, answer) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const body = Buffer.concat(pieces);
  const method = request.url.match(/^\/bot[^/]+\/(\w+)$/)?.[1];
  const is_json = request.headers["content-type"] === "application/json";
  if (method) calls.push({ method, body: is_json ? JSON.parse(body) : null });
  const inner = await fetch(`http://${host}:${INNER_PORT}${request.url}`, {
    method: request.method,
    headers: { "content-type": request.headers["content-type"] ?? "application/json" },
    body,
  });
  answer.writeHead(inner.status, { "content-type": "application/json" });
  answer.end(await inner.text());
}).listen(Number(PORT), host);

// A bot of grammy's, to which the same deliveries are made.
const heard = [];
const botInfo = { id: 666, is_bot: true, first_name: "Smith", username: "TestNameBot" };
const bot = new Bot(OTHER_TOKEN, { botInfo });
bot.on("message:text", (context) => {
  const { from, chat, message } = context;
  heard.push({ from: from.id, chat: chat.id, text: message.text, is_private: chat.type === "private" });
});
bot.on("callback_query:data", (context) => {
  heard.push({ from: context.from.id, pressed: context.callbackQuery.data });
});
createServer(webhookCallback(bot, "http", { secretToken: SECRET })).listen(Number(HOOK_PORT), host);

// What TypeScript says of calls by grammy's types, a line for each fault.
async function check(found) {
  const folder = await mkdtemp(join(tmpdir(), "grammy-"));
  try {
    const modules = join(import.meta.dirname, "node_modules");
    await symlink(modules, join(folder, "node_modules"));
    const lines = found.map(({ method, body }) => {
      // Of those that bots call here it alone has no parameters.
      const given = method === "getMe" ? "" : JSON.stringify(body);
      return `raw.${method}(${given});`;
    });
    const head = `import type { RawApi } from "grammy";\ndeclare const raw: RawApi;\n`;
    await writeFile(join(folder, "calls.ts"), head + lines.join("\n"));
    const flags = "--noEmit --strict --skipLibCheck --module nodenext --target esnext --pretty false";
    const compiler = join(modules, "typescript/bin/tsc");
    const given = [compiler, ...flags.split(" "), "calls.ts"];
    const told = await new Promise((done) => {
      execFile(process.execPath, given, { cwd: folder }, (error, out) => done(error ? out || `${error}` : ""));
    });
    return told.split("\n").filter(Boolean);
  } finally {
    await rm(folder, { recursive: true });
  }
}

const person = (user, token = TOKEN) =>
  telegram.getClient(token, { userId: user, chatId: user, firstName: "Ann", userName: "ann" });
const commands = {
  async say({ user, text, token }) {
    const client = person(user, token);
    return text.startsWith("/")
      ? client.sendCommand(client.makeCommand(text))
      : client.sendMessage(client.makeMessage(text));
  },
  async press({ user, data, message, token }) {
    const client = person(user, token);
    const pressed = { message: { message_id: message } };
    return client.sendCallback(client.makeCallbackQuery(data, pressed));
  },
  // What is shown in a chat of what the bot has sent.
  shown: ({ user }) =>
    telegram.storage.botMessages
      .filter(({ botToken, message }) => botToken === TOKEN && Number(message.chat_id) === user)
      .map(({ messageId, message }) => ({ id: messageId, ...message })),
  webhook: ({ token }) => telegram.webhooks[token] ?? null,
  // Updates of a bot that nobody asks for, as the package forms them.
  updates: ({ token }) => telegram.getUpdates(token),
  calls: () => calls,
  check,
  heard: () => heard,
};
console.log(JSON.stringify("ready"));
for await (const line of createInterface({ input: process.stdin })) {
  const [[name, given]] = Object.entries(JSON.parse(line));
  console.log(JSON.stringify((await commands[name](given)) ?? null));
}
process.exit();
