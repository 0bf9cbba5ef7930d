// `useChat` of @ai-sdk/react, unmodified, in headless Chromium, with a smith's own token.
//
// Environment: BASE_URL, SMITH_TOKEN, CHROMIUM (its path), SCENARIO: with `approvals` the smith
// has the tools of mcp_workshop.py.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { build } from "esbuild";
import puppeteer from "puppeteer-core";

const { BASE_URL, SMITH_TOKEN, CHROMIUM } = process.env;
const HELLO = 'Hello, "wörld" \n😀';
let checks = 0;
const check = (actual, expected) => {
  assert.deepEqual(actual, expected);
  checks += 1;
};

const bundle = await build({
  entryPoints: [new URL("use_chat_page.jsx", import.meta.url).pathname],
  bundle: true, write: false, format: "iife", jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"' },
});
const script = bundle.outputFiles[0].text;
const page = (chat, model) => `<!doctype html><meta charset="utf-8"><div id="root"></div>
<script>window.settings = ${JSON.stringify({ api: `${BASE_URL}/ui/chat`, token: SMITH_TOKEN, chat, model })}</script>
<script src="/page.js"></script>`;
const server = createServer((request, response) => {
  const url = new URL(request.url, "http://page");
  const isScript = url.pathname === "/page.js";
  response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
  response.end(isScript ? script : page(url.searchParams.get("chat"), url.searchParams.get("model")));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${server.address().port}`;
const browser = await puppeteer.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--no-proxy-server"] });

async function open(chat, model) {
  const tab = await browser.newPage();
  tab.on("pageerror", (error) => console.error("the page:", error));
  await tab.goto(`${origin}/?chat=${chat}&model=${encodeURIComponent(model)}`);
  return tab;
}
const settled = (tab) =>
  tab.waitForFunction(() => ["ready", "error"].includes(document.getElementById("status")?.textContent), { timeout: 10_000 });
const said = (tab) => tab.$$eval(".assistant", (all) => all.map((one) => one.textContent));
async function say(tab, text) {
  await tab.type("input", text);
  await tab.keyboard.press("Enter");
}

async function chats() {
  // Text streams in, and the page hears of it piece by piece.
  const tab = await open("streams", "anthropic/fault-slow");
  await say(tab, "hi");
  await tab.waitForFunction(() => window.seen?.at(-1), { timeout: 10_000 });
  await settled(tab);
  check(await said(tab), [HELLO]);
  const grown = [...new Set(await tab.evaluate(() => window.seen))].filter((text) => text !== "");
  assert(grown.length >= 3 && grown.every((text) => HELLO.startsWith(text)), grown);
  check(await tab.$eval("#error", (one) => one.textContent), "");

  // A second turn, on top of the first.
  await say(tab, "and again");
  await tab.waitForFunction(() => document.querySelectorAll(".assistant").length === 2, { timeout: 10_000 });
  await settled(tab);
  check(await said(tab), [HELLO, HELLO]);

  // A page that is loaded when nothing is under way shows what it kept.
  await tab.reload();
  await settled(tab);
  check(await said(tab), [HELLO, HELLO]);

  // A reload in mid-answer goes on.
  const other = await open("resumes", "anthropic/fault-slower");
  await say(other, "hi");
  const first = await other.waitForFunction(() => window.seen?.at(-1), { timeout: 10_000 });
  const before = await first.jsonValue();
  assert(before !== HELLO, before);
  await other.reload();
  await other.waitForFunction((text) => window.seen?.at(-1) === text, { timeout: 10_000 }, HELLO);
  await settled(other);
  check(await said(other), [HELLO]);

  // A tool's call is a part of its own.
  const tools = await open("tools", "anthropic/thinking_tools");
  await say(tools, "hi");
  await tools.waitForSelector(".tool", { timeout: 10_000 });
  await settled(tools);
  check(await tools.$$eval(".tool", (all) => all.map((one) => one.textContent)), [
    'tool-get_weather input-available {"city":"Paris"}',
  ]);

  // A failure in mid-answer is the page's error.
  const fails = await open("fails", "anthropic/fault-half");
  await say(fails, "hi");
  await fails.waitForFunction(() => document.getElementById("error")?.textContent, { timeout: 10_000 });
  check(await fails.$eval("#status", (one) => one.textContent), "error");
}

// A tool's step shows, another one asks, and the answer is given on the page.
async function approvals() {
  for (const [word, expected] of [["yes", /rod is molten/], ["no", /^(?!.*rod is molten)/s]]) {
    const tab = await open(`asks-${word}`, "");
    await say(tab, 'measure {"thing": "rod"}');
    await tab.waitForSelector(".done", { timeout: 10_000 });
    await settled(tab);
    check(await tab.$$eval(".done", (all) => all.map((one) => one.textContent)), ["tool-measure rod: 12 cm"]);
    await say(tab, 'melt {"thing": "rod"}');
    await tab.waitForSelector(".asks", { timeout: 10_000 });
    check(await tab.$eval(".asks", (one) => one.textContent), 'tool-melt {"thing":"rod"}?YesNo');
    await tab.click(`.${word}`);
    await tab.waitForFunction(() => !document.querySelector(".asks"), { timeout: 10_000 });
    await settled(tab);
    check(await tab.$eval("#error", (one) => one.textContent), "");
    assert.match((await said(tab)).at(-1), expected);
  }
}

try {
  await (process.env.SCENARIO === "approvals" ? approvals() : chats());
} finally {
  await browser.close();
  server.close();
}
const version = (name) => JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
console.log(`@ai-sdk/react ${version("@ai-sdk/react")} in Chromium: ${checks} checks`);
