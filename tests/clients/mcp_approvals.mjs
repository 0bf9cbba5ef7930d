// `@modelcontextprotocol/sdk` and `@modelcontextprotocol/client`, unmodified, ask their human what a
// smith's run waits for.
//
// Environment: URL (of the endpoint), SMITH_TOKEN (of a smith that has the tools of mcp_workshop.py).

import assert from "node:assert/strict";
import { Client as OldClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as OldTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const requestInit = { headers: { Authorization: `Bearer ${process.env.SMITH_TOKEN}` } };
const url = new URL(process.env.URL);
const capabilities = { capabilities: { elicitation: { form: {} } } };
const info = { name: "test", version: "1" };

async function decide(client, transport, method) {
  const seen = [];
  let answer;
  client.setRequestHandler(method, async (request) => {
    seen.push(request.params.message);
    return answer;
  });
  await client.connect(transport);
  const ask = (message) => client.callTool({ name: "ask", arguments: { message } });
  answer = { action: "accept", content: { approve: true } };
  const done = await ask('melt {"thing": "y"}');
  assert.match(done.content[0].text, /y is molten/);
  assert.equal(seen.length, 1);
  assert.match(seen[0], /melt/);
  answer = { action: "decline" };
  const declined = await ask('melt {"thing": "y"}');
  assert.doesNotMatch(declined.content[0].text, /y is molten/);
  answer = { action: "accept", content: { width: 3 } };
  const cut = await ask('cut {"thing": "rod"}');
  assert.match(cut.content[0].text, /rod is 3 wide/);
  assert.equal(seen.at(-1), "How wide shall rod be?");
  await client.close();
}

await decide(new OldClient(info, capabilities), new OldTransport(url, { requestInit }), ElicitRequestSchema);
const auto = { ...capabilities, versionNegotiation: { mode: "auto" } };
for (const options of [capabilities, auto]) {
  await decide(new Client(info, options), new StreamableHTTPClientTransport(url, { requestInit }), "elicitation/create");
}
console.log("mcp: all approvals seen");
