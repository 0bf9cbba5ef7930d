/** The client of a Smithgate gateway: one function for each operation of its API. */
import { createClient, createConfig } from "./generated/client/index.js";
import type { Client } from "./generated/client/index.js";

export * from "./generated/index.js";
export type { Client } from "./generated/client/index.js";
export * from "./runs.js";

/** The version of the API that this package speaks. */
export const API_VERSION = "2026-05-01";

export interface SmithgateOptions {
  /** The gateway, without `/v1`: `http://127.0.0.1:8080`. */
  baseUrl: string;
  /** A tenant's, an organization's or a smith's token. */
  apiKey: string;
  /** The smith that calls act as, when the token is a tenant's. */
  smithId?: string;
  fetch?: typeof fetch;
}

/** What every call sends. */
export function headersOf(options: Pick<SmithgateOptions, "apiKey" | "smithId">): Record<string, string> {
  return {
    authorization: `Bearer ${options.apiKey}`,
    "ic-api-version": API_VERSION,
    ...(options.smithId ? { "ic-smith-id": options.smithId } : {}),
  };
}

/** A client to give to the operations: `agentsList({ client })`. */
export function createSmithgateClient(options: SmithgateOptions): Client {
  return createClient(
    createConfig({
      baseUrl: options.baseUrl.replace(/\/+$/, ""),
      headers: headersOf(options),
      ...(options.fetch ? { fetch: options.fetch } : {}),
    }),
  );
}
