/** Smiths as language models of the AI SDK, over the Responses wire. */
import { createOpenAI } from "@ai-sdk/openai";

export * from "./approvals.js";

/** The version of the API that this package speaks. */
export const API_VERSION = "2026-05-01";

export interface SmithgateSettings {
  /** A smith's token, or a tenant's with `smithId`. */
  apiKey: string;
  /** Up to and with `/v1`. */
  baseURL?: string;
  apiVersion?: string;
  smithId?: string;
  /** The thread that is remembered: then only new messages are to be sent. */
  threadId?: string;
  headers?: Record<string, string>;
  fetch?: typeof fetch;
}

/** What every call sends beside the token; the caller's own headers come last. */
export function headersOf(settings: SmithgateSettings): Record<string, string> {
  return {
    "IC-Api-Version": settings.apiVersion ?? API_VERSION,
    ...(settings.smithId ? { "IC-Smith-Id": settings.smithId } : {}),
    ...(settings.threadId ? { "IC-Thread-Id": settings.threadId } : {}),
    ...settings.headers,
  };
}

/** `createSmithgate(settings)()` is the smith with its own model; an id names another one. */
export function createSmithgate(settings: SmithgateSettings) {
  const provider = createOpenAI({
    name: "smithgate",
    apiKey: settings.apiKey,
    baseURL: (settings.baseURL ?? "http://127.0.0.1:8080/v1").replace(/\/+$/, ""),
    headers: headersOf(settings),
    ...(settings.fetch ? { fetch: settings.fetch } : {}),
  });
  return (modelId = "") => provider.responses(modelId);
}
