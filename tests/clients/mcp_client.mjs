// The `@modelcontextprotocol/sdk` package, unmodified, as an MCP host of a smith.
//
// Environment: URL (of the endpoint), SMITH_TOKEN, SLOW_URL, SLOW_TOKEN (of one that answers slowly).

import assert from "node:assert/strict";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const HELLO = 'Hello, "wörld" \n😀';
async function connect(url, token) {
  const requestInit = { headers: { Authorization: `Bearer ${token}` } };
  const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit });
  const client = new Client({ name: "test", version: "1" });
  await client.connect(transport);
  return [client, transport];
}

const [client, transport] = await connect(process.env.URL, process.env.SMITH_TOKEN);
assert.equal(client.getServerVersion().name, "smithgate");
assert.deepEqual((await client.listTools()).tools.map((tool) => tool.name), ["ask"]);
const answer = await client.callTool({ name: "ask", arguments: { message: "hi" } });
assert.equal(answer.content[0].text, HELLO);
assert.equal(answer.structuredContent.reply, HELLO);
await assert.rejects(client.callTool({ name: "none", arguments: {} }));
await transport.terminateSession();
await assert.rejects(client.ping(), "the session is gone");

const [slow] = await connect(process.env.SLOW_URL, process.env.SLOW_TOKEN);
slow.onerror = (error) => console.error("slow:", error);
const seen = [];
const told = await slow.callTool({ name: "ask", arguments: { message: "hi" } }, undefined, { onprogress: ({ progress }) => seen.push(progress) });
assert.equal(told.content[0].text, HELLO);
assert(seen.length > 0);
const controller = new AbortController();
setTimeout(() => controller.abort("enough"), 200);
await assert.rejects(slow.callTool({ name: "ask", arguments: { message: "hi" } }, undefined, { signal: controller.signal }));
// The word of it is still on its way.
await new Promise((resolve) => setTimeout(resolve, 300));
await slow.close();
console.log("mcp: all seen");
