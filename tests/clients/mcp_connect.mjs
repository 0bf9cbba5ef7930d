// `@modelcontextprotocol/sdk`, unmodified, connects to a deployment by OAuth, and refreshes.
//
// Environment: URL (of the endpoint), SMITH_TOKEN (the connect token).

import assert from "node:assert/strict";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { auth, UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";

class Provider {
  redirectUrl = "http://localhost:4040/callback";
  clientMetadata = { client_name: "A Node host", redirect_uris: [this.redirectUrl], token_endpoint_auth_method: "none" };
  clientInformation() { return this.client; }
  saveClientInformation(client) { this.client = client; }
  tokens() { return this.saved; }
  saveTokens(tokens) { this.saved = tokens; }
  codeVerifier() { return this.verifier; }
  saveCodeVerifier(verifier) { this.verifier = verifier; }
  state() { return "a state"; }
  redirectToAuthorization(url) { this.sentTo = url; }
}

const url = new URL(process.env.URL);
const provider = new Provider();
const connect = () => {
  const client = new Client({ name: "test", version: "1" });
  const transport = new StreamableHTTPClientTransport(url, { authProvider: provider });
  return [client, transport];
};

const [stranger, first] = connect();
await assert.rejects(stranger.connect(first), UnauthorizedError);
const page = await fetch(provider.sentTo);
assert.equal(page.status, 200);
assert.match(await page.text(), /A Node host/);
const form = new URLSearchParams(provider.sentTo.searchParams);
form.set("connect_token", process.env.SMITH_TOKEN);
const sent = await fetch(provider.sentTo.origin + provider.sentTo.pathname, { method: "POST", body: form, redirect: "manual" });
assert.equal(sent.status, 302);
const back = new URL(sent.headers.get("location"));
assert.equal(back.searchParams.get("state"), "a state");
await first.finishAuth(back.searchParams.get("code"));

const [host, transport] = connect();
await host.connect(transport);
const answer = await host.callTool({ name: "ask", arguments: { message: "hi" } });
assert(!answer.isError);
await host.close();

const before = provider.saved;
provider.saved = { ...before, access_token: "thp_live_stale" };
const [again, later] = connect();
await again.connect(later);
assert.notEqual(provider.saved.refresh_token, before.refresh_token, "it rotates");
assert(!(await again.callTool({ name: "ask", arguments: { message: "hi" } })).isError);
await again.close();
console.log("mcp: connected and refreshed");
