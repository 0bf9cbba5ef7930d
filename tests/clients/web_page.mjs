// A web page of a deployment in headless Chromium: what a visitor does, what a model must not be able
// to do, what axe-core says of it, and how another site shows it.
//
// Environment: PARROT, SLOW, TOOLS, LOCKED (addresses of pages), DECISION (of a decision page), SITE
// (where another site is to listen), CHROMIUM (its path), SHOTS (a folder for pictures, or empty);
// SCENES: some of what is done here, with commas.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import puppeteer from "puppeteer-core";

const { PARROT, SLOW, TOOLS, LOCKED, DECISION, SITE, CHROMIUM, SHOTS } = process.env;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await puppeteer.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--no-proxy-server"] });
let checks = 0;
const check = (is, about) => {
  assert(is, about);
  checks += 1;
};
const complaints = [];

async function open(url, { width = 1100, height = 800, dark = false, context = browser } = {}) {
  const tab = await context.newPage();
  await tab.setViewport({ width, height, deviceScaleFactor: SHOTS ? 2 : 1 });
  await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
  tab.on("pageerror", (error) => complaints.push(`${url}: ${error}`));
  tab.on("console", (message) => {
    // A browser tells of each answer that is an error.
    const isTold = message.text().startsWith("Failed to load resource");
    if (message.type() === "error" && !isTold) complaints.push(`${url}: ${message.text()}`);
  });
  const hosts = new Set();
  tab.on("request", (request) => {
    const { protocol, host } = new URL(request.url());
    if (protocol.startsWith("http")) hosts.add(host);
  });
  tab.hosts = hosts;
  await tab.goto(url);
  return tab;
}

async function shot(tab, name) {
  if (SHOTS) await tab.screenshot({ path: `${SHOTS}/${name}.png` });
}

async function accessible(tab, about) {
  await tab.evaluate(axe);
  const { violations } = await tab.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const told = violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
  check(told.length === 0, `${about}: ${told.join("\n")}`);
}

const begun = (tab) => tab.waitForFunction(() => !document.getElementById("empty").hidden || document.getElementById("log").childElementCount > 0, { timeout: 10_000 });
const settled = (tab, count) => tab.waitForFunction((count) => {
  const all = [...document.querySelectorAll(".assistant")];
  return all.length >= count && all.every((one) => one.getAttribute("aria-busy") === "false");
}, { timeout: 15_000 }, count);

async function say(tab, text) {
  await tab.focus("#words");
  await tab.$eval("#words", (words, text) => {
    words.value = text;
    words.dispatchEvent(new Event("input"));
  }, text);
  await tab.keyboard.press("Enter");
}

const last = (tab) => tab.$$eval(".assistant", (all) => all.at(-1).querySelector(".said").innerText);

const RICH = `## Returning an order

Send it back within **30 days**, in *any* box that fits. It costs nothing, see [the rules](https://example.com/returns) or write to <mailto:help@example.com>.

1. Print the label
2. Put it *outside* of the box
   - not over a seam
   - the old one ~~stays~~ goes
3. Hand it in

| Country | Days | Price |
|---|:---:|---:|
| France | 3 | 0.00 |
| Norway | 5 | 4.50 |

- [x] paid
- [ ] sent

> We write when it has come.

\`\`\`python
def label(order: str) -> bytes:
    """A label, as PDF."""
    return render("label", order=order)
\`\`\`

Ask for \`R-1042\` at the counter.`;

const EVIL = [
  "<img src=x onerror=\"window.pwned=1\">", "<script>window.pwned=1</script>", "[a](javascript:window.pwned=1)",
  "[b](data:text/html,<script>window.pwned=1</script>)", "![c](https://evil.invalid/pixel.png)", "<javascript:window.pwned=1>",
  "[d](JaVaScRiPt:window.pwned=1)", "[e]( javascript:window.pwned=1)", "`<svg onload=window.pwned=1>`", "| <b>x</b> |\n|---|\n| <i onclick=window.pwned=1>y</i> |",
  "```<img src=x onerror=window.pwned=1>\n</code></pre><script>window.pwned=1</script>\n```", "[f](vbscript:x \"t\\\" onmouseover=window.pwned=1\")",
].join("\n\n");

async function chats() {
  const tab = await open(PARROT);
  await begun(tab);
  await accessible(tab, "empty");
  await shot(tab, "empty-light");
  check((await tab.$eval(".greeting", (one) => one.textContent)).startsWith("Good day."), "a greeting");

  // A suggestion is said by a press; the answer streams in, formatted.
  await tab.click(".chips .chip");
  await settled(tab, 1);
  check(await last(tab) === "Where is my order?", await last(tab));
  await say(tab, `think: They ask how a return works. I know the rules; ${RICH}`);
  await settled(tab, 2);
  const tags = await tab.$eval(".assistant:last-child .prose", (one) => [...new Set([...one.querySelectorAll("*")].map((each) => each.localName))]);
  for (const tag of ["h2", "strong", "em", "a", "ol", "ul", "li", "del", "table", "blockquote", "pre", "code", "button"]) {
    check(tags.includes(tag), `${tag} is not in ${tags}`);
  }
  const links = await tab.$$eval(".assistant a", (all) => all.map((one) => [one.href, one.rel]));
  check(links.length === 2 && links[0][0] === "https://example.com/returns" && links[0][1].includes("noopener"), links);
  await accessible(tab, "an answer");
  await shot(tab, "answer-light");

  // Nothing that a model says is run, loaded, or leads where it should not.
  await say(tab, EVIL);
  await settled(tab, 3);
  const made = await tab.$eval(".assistant:last-child .prose", (one) => [...one.querySelectorAll("img, script, svg, iframe, b, i, [onclick], [onerror], a[href^=javascript i], a[href^=data i]")].length);
  check(made === 0, "markup was made of a model's words");
  check(await tab.evaluate(() => window.pwned) === undefined, "a model's words were run");

  // It is all there after a reload, and looks the same.
  const before = await tab.$eval("#log", (one) => one.innerText);
  await tab.reload();
  await settled(tab, 3);
  check(await tab.$eval("#log", (one) => one.innerText) === before, "the conversation after a reload");
  check(await tab.evaluate(() => window.pwned) === undefined, "a model's words were run after a reload");

  // By keyboard alone: the way to the message box, then a new conversation.
  await tab.$eval("body", (body) => body.focus());
  await Promise.all([tab.waitForNavigation(), tab.click("#new")]);
  await begun(tab);
  check(await tab.$eval("#log", (one) => one.childElementCount) === 0, "a new conversation is empty");
  check(tab.hosts.size === 1, [...tab.hosts]);
  await tab.close();

  // Dark, and on a phone.
  const dark = await open(PARROT, { dark: true });
  await begun(dark);
  await shot(dark, "empty-dark");
  await say(dark, `think: They ask how a return works. I know the rules; ${RICH}`);
  await settled(dark, 1);
  await accessible(dark, "dark");
  await shot(dark, "answer-dark");
  await dark.setViewport({ width: 360, height: 700, deviceScaleFactor: SHOTS ? 2 : 1, isMobile: true, hasTouch: true });
  await dark.reload();
  await settled(dark, 1);
  const wide = await dark.evaluate(() => document.documentElement.scrollWidth);
  check(wide <= 360, `${wide} pixels on a phone`);
  await accessible(dark, "a phone");
  await shot(dark, "phone-dark");
  await dark.close();
  const phone = await open(PARROT, { width: 360, height: 700 });
  await settled(phone, 1);
  await shot(phone, "phone-light");
  await phone.close();
}

async function files() {
  const context = await browser.createBrowserContext();
  const tab = await open(PARROT, { context });
  await begun(tab);
  const image = await tab.evaluate(async () => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 64;
    const on = canvas.getContext("2d");
    on.fillStyle = "#2f9e44";
    on.fillRect(0, 0, 64, 64);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const data = new DataTransfer();
    data.items.add(new File([blob], "leaf.png", { type: "image/png" }));
    data.items.add(new File(["a note"], "note <b>.txt", { type: "text/plain" }));
    const input = document.getElementById("picked");
    input.files = data.files;
    input.dispatchEvent(new Event("change"));
    return blob.size;
  });
  check(image > 0, "an image");
  await tab.waitForFunction(() => document.querySelectorAll("#files .file:not(.goes)").length === 2, { timeout: 10_000 });
  await shot(tab, "files");
  await accessible(tab, "files");
  await say(tab, "What is this?");
  await settled(tab, 1);
  check(await tab.$$eval(".sent > *", (all) => all.length) === 2, "files are shown");
  await tab.evaluate(() => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(100_000)], "big.bin"));
    const input = document.getElementById("picked");
    input.files = data.files;
    input.dispatchEvent(new Event("change"));
  });
  await tab.waitForFunction(() => document.getElementById("fault").textContent.includes("at most"), { timeout: 5_000 });
  checks += 1;
  await context.close();
}

async function slowly() {
  const context = await browser.createBrowserContext();
  const tab = await open(SLOW, { context });
  await begun(tab);
  const words = Array.from({ length: 60 }, (_, at) => `word${at}`).join(" ");
  await say(tab, words);
  await tab.waitForFunction(() => document.querySelector(".prose")?.innerText.includes("word3"), { timeout: 10_000 });
  check(!(await last(tab)).includes("word50"), "it comes word by word");
  // A reload in mid-answer goes on.
  await tab.reload();
  await tab.waitForFunction(() => document.querySelector(".prose")?.innerText.includes("word8"), { timeout: 10_000 });
  check(await tab.$eval("#stop", (one) => !one.hidden), "it can be stopped");
  await shot(tab, "streaming");
  await tab.click("#stop");
  await settled(tab, 1);
  check((await tab.$eval(".note", (one) => one.textContent)) === "Stopped.", "it was stopped");
  check(!(await last(tab)).includes("word59"), "it ended early");
  await context.close();
}

async function decides() {
  const context = await browser.createBrowserContext();
  const tab = await open(TOOLS, { context });
  await begun(tab);
  await say(tab, 'measure {"thing": "rod"}\n---\nmelt {"thing": "rod"}\ncut {"thing": "bar"}');
  await tab.waitForSelector(".ask", { timeout: 10_000 });
  await accessible(tab, "an approval");
  check((await tab.$$eval(".tool .state", (all) => all.map((one) => one.textContent)))[0] === "Done", "a step is done");
  await tab.click(".tool summary");
  await shot(tab, "approval");
  await tab.click(".ask .main");
  await tab.waitForSelector(".ask:not(.settled) form input", { timeout: 10_000 });
  await accessible(tab, "a question");
  await shot(tab, "question");
  await tab.type(".ask:not(.settled) input", "12");
  await tab.keyboard.press("Enter");
  await tab.waitForFunction(() => document.querySelector("#log").innerText.includes("bar is 12 wide"), { timeout: 10_000 });
  await settled(tab, 1);
  await shot(tab, "decided");
  await accessible(tab, "decided");
  // What is rejected is not run.
  await say(tab, 'melt {"thing": "<b>gold</b>"}');
  await tab.waitForSelector(".ask:not(.settled)", { timeout: 10_000 });
  await tab.reload();
  await tab.waitForSelector(".ask", { timeout: 10_000 });
  await tab.click(".ask .choice button:last-child");
  await tab.waitForSelector(".ask.settled", { timeout: 10_000 });
  await settled(tab, 2);
  check(!(await last(tab)).includes("molten"), "rejected");
  check(await tab.$$eval(".tool[data-state=denied]", (all) => all.length) === 1, "the step says so");
  // Files of tools and pictures of models are shown, or can be kept, also when it is loaded again.
  await say(tab, 'paint {"thing": "wall"}');
  await settled(tab, 3);
  await say(tab, 'sketch {"thing": "a cat"}');
  await settled(tab, 4);
  for (const when of ["at once", "later"]) {
    await tab.waitForFunction(() => {
      const shown = [...document.querySelectorAll("img.made")].filter((one) => one.naturalWidth === 1);
      return shown.map((one) => one.alt).join() === "image-1.png,a cat";
    }, { timeout: 10_000 });
    const kept = await tab.$$eval("a[download]", (all) => all.map((one) => [one.download, one.href]));
    check(kept.length === 1 && kept[0][0] === "wall.pdf" && kept[0][1].startsWith("data:application/pdf;base64,JVBER"), `${when}: ${kept}`);
    const said = await tab.$$eval(".prose", (all) => all.map((one) => one.innerText).join());
    check(!said.includes("base64"), `${when}: no letters of a picture`);
    await accessible(tab, `files ${when}`);
    await tab.reload();
    await settled(tab, 4);
  }
  await context.close();
}

async function opens() {
  const context = await browser.createBrowserContext();
  const tab = await open(LOCKED, { context });
  await accessible(tab, "the door");
  await shot(tab, "door");
  await tab.type("#password", "wrong");
  await tab.keyboard.press("Enter");
  await tab.waitForFunction(() => document.getElementById("refused").textContent !== "", { timeout: 10_000 });
  await tab.type("#password", "correct horse");
  await Promise.all([tab.waitForNavigation(), tab.keyboard.press("Enter")]);
  await begun(tab);
  await accessible(tab, "an odd accent");
  await say(tab, "hi");
  await settled(tab, 1);
  check(await last(tab) === "hi", "the door is open");
  await context.close();
}

async function embeds() {
  const [host, port] = SITE.split(":");
  const site = (policy) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>A shop</title><main><h1>A shop</h1><p>${policy}</p></main>
<script src="${PARROT}/embed.js" data-label="Ask us"></script></html>`;
  const server = createServer((request, response) => {
    const origin = new URL(PARROT).origin;
    // A strict site: it lets the script in and its frame, and no style of its own making.
    response.setHeader("content-security-policy", `default-src 'none'; script-src ${origin}; frame-src ${origin}`);
    response.setHeader("content-type", "text/html");
    response.end(site(request.url));
  });
  await new Promise((resolve) => server.listen(Number(port), host, resolve));
  const context = await browser.createBrowserContext();
  try {
    const tab = await open(`http://${SITE}/`, { context });
    await tab.waitForSelector("smithgate-chat");
    await accessible(tab, "the bubble");
    await tab.keyboard.press("Tab");
    await tab.keyboard.press("Enter");
    const frame = await tab.waitForFrame((one) => one.url().includes("/hosted/"), { timeout: 10_000 });
    await frame.waitForSelector(".greeting", { visible: true });
    await frame.focus("#words");
    await tab.keyboard.type("from a shop");
    await tab.keyboard.press("Enter");
    await frame.waitForFunction(() => document.querySelector(".prose")?.innerText === "from a shop", { timeout: 10_000 });
    checks += 1;
    await shot(tab, "embedded");
    await frame.focus("#words");
    await tab.keyboard.press("Escape");
    await pause(300);
    await shot(tab, "bubble");
    // A page that does not name the site is not shown there.
    const other = await context.newPage();
    await other.goto(`http://${SITE}/`);
    await other.evaluate((url) => {
      const frame = document.createElement("iframe");
      frame.src = `${url}?embed`;
      document.body.append(frame);
    }, SLOW);
    await pause(700);
    const shown = other.frames().find((one) => one !== other.mainFrame());
    check(!shown || !(await shown.$(".greeting").catch(() => null)), "a page that does not name the site");
  } finally {
    await context.close();
    server.close();
  }
}

async function links() {
  const context = await browser.createBrowserContext();
  const tab = await open(DECISION, { context });
  await accessible(tab, "a decision");
  await shot(tab, "decision");
  await tab.setViewport({ width: 360, height: 700, deviceScaleFactor: 2 });
  await shot(tab, "decision-phone");
  await Promise.all([tab.waitForNavigation(), tab.click("button.main")]);
  check((await tab.$eval("h1", (one) => one.textContent)) === "Approved", "approved");
  await accessible(tab, "decided");
  await shot(tab, "decision-done");
  await context.close();
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

try {
  const scenes = { chats, files, slowly, decides, opens, embeds, links };
  const wanted = process.env.SCENES?.split(",") ?? Object.keys(scenes);
  for (const name of wanted) await scenes[name]();
  // What was tried on purpose: a frame that its page does not allow.
  const unexpected = complaints.filter((one) => !/frame-ancestors|Framing|ERR_BLOCKED|chrome-error/.test(one));
  check(unexpected.length === 0, unexpected.join("\n"));
} finally {
  await browser.close();
}
console.log(`the page in Chromium: ${checks} checks`);
