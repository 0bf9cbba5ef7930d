// eve, unmodified: its development server runs an agent whose model is a smith and whose tool is
// eve's own.
//
// Environment: BASE_URL, SMITH_TOKEN.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname } from "node:path";

const HELLO = 'Hello, "wörld" \n😀';
const here = (path) => new URL(path, import.meta.url).pathname;
const port = await new Promise((resolve) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});
const env = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
const eve = spawn(
  process.execPath,
  [here("node_modules/eve/bin/eve.js"), "dev", "--no-ui", "--no-default-extensions", "--host", "127.0.0.1", "--port", String(port)],
  { cwd: here("eve_agent"), env, stdio: ["ignore", "pipe", "pipe"] },
);
let told = "";
for (const stream of [eve.stdout, eve.stderr]) stream.on("data", (piece) => (told += piece));
const origin = `http://127.0.0.1:${port}`;

try {
  const begun = Date.now();
  for (;;) {
    const answered = await fetch(origin).then(() => true, () => false);
    if (answered) break;
    assert(Date.now() - begun < 60_000 && eve.exitCode === null, told);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const made = await fetch(`${origin}/eve/v1/session`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ message: "hi" }),
  });
  const { sessionId } = await made.json();
  const stream = await fetch(`${origin}/eve/v1/session/${sessionId}/stream`, { signal: AbortSignal.timeout(40_000) });
  let held = "";
  const events = [];
  const ended = () => events.some((event) => ["session.waiting", "session.failed"].includes(event.type));
  for await (const piece of stream.body.pipeThrough(new TextDecoderStream())) {
    held += piece;
    const lines = held.split("\n");
    held = lines.pop();
    for (const line of lines) if (line.trim()) events.push(JSON.parse(line));
    if (ended()) break;
  }
  const said = events.filter((event) => event.type === "message.completed").map((event) => event.data.message);
  assert.equal(said.at(-1), HELLO, JSON.stringify(events, null, 1));
  const results = JSON.stringify(events.filter((event) => event.type.startsWith("action")));
  for (const city of ["Paris", "Rome"]) assert(results.includes(`mild in ${city}`), results);
} finally {
  eve.kill("SIGKILL");
}
const version = JSON.parse(readFileSync(here("node_modules/eve/package.json"))).version;
console.log(`eve ${version}: a turn with two calls`);
process.exit(0);
