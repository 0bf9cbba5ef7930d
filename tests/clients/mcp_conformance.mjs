// The MCP project's own conformance suite against a smith's endpoint: every server scenario that is
// about what a smith offers. The suite sends no token, so a proxy adds it.
//
// Environment: URL (of the endpoint), SMITH_TOKEN.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const { URL: ENDPOINT, SMITH_TOKEN } = process.env;
const SCENARIOS = [
  "server-initialize", "ping", "tools-list", "server-sse-polling", "server-sse-multiple-streams", "dns-rebinding-protection",
];
const target = new URL(ENDPOINT);
const proxy = createServer((incoming, outgoing) => {
  const headers = { ...incoming.headers, authorization: `Bearer ${SMITH_TOKEN}` };
  const forwarded = request({ host: target.hostname, port: target.port, path: target.pathname, method: incoming.method, headers });
  forwarded.on("response", (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    answer.pipe(outgoing);
  });
  forwarded.on("error", () => outgoing.destroy());
  outgoing.on("close", () => forwarded.destroy());
  incoming.pipe(forwarded);
});
await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${proxy.address().port}/mcp`;
const suite = new URL("node_modules/@modelcontextprotocol/conformance/dist/index.js", import.meta.url).pathname;
const results = mkdtempSync(join(tmpdir(), "conformance-"));

for (const scenario of SCENARIOS) {
  const child = spawn(process.execPath, [suite, "server", "--url", url, "--scenario", scenario, "-o", results]);
  let told = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (piece) => (told += piece));
  const code = await new Promise((resolve) => child.on("close", resolve));
  assert.equal(code, 0, `${scenario}: ${told}`);
}
proxy.closeAllConnections();
proxy.close();
const version = JSON.parse(readFileSync(new URL("node_modules/@modelcontextprotocol/conformance/package.json", import.meta.url))).version;
console.log(`@modelcontextprotocol/conformance ${version}: ${SCENARIOS.length} scenarios`);
