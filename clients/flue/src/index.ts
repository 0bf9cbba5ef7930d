/** Smiths as a model provider of Flue. */
import { createProvider } from "@earendil-works/pi-ai";
import type { Model, Provider } from "@earendil-works/pi-ai";
import { openAICompletionsApi } from "@earendil-works/pi-ai/api/openai-completions.lazy";

/** The version of the API that this package speaks. */
export const API_VERSION = "2026-05-01";

export interface ModelSettings {
  contextWindow?: number;
  /** 0: no limit is sent. */
  maxTokens?: number;
}

export interface SmithgateFlueSettings {
  /** A smith's token, or a tenant's with `smithId`. */
  apiKey: string;
  smithId?: string;
  /** The provider's id in specifiers such as `smithgate/anthropic/claude-opus-4-8`. */
  providerId?: string;
  /** Up to and with `/v1`. */
  baseURL?: string;
  apiVersion?: string;
  headers?: Record<string, string>;
  contextWindow?: number;
  maxTokens?: number;
  /** The ids that agents may name. */
  models: Record<string, ModelSettings>;
}

/** The provider, to give to Flue's `setProvider()` or `start({ providers })`. */
export function smithgateProvider(settings: SmithgateFlueSettings): Provider<"openai-completions"> {
  const id = settings.providerId ?? "smithgate";
  const headers = {
    "IC-Api-Version": settings.apiVersion ?? API_VERSION,
    ...(settings.smithId ? { "IC-Smith-Id": settings.smithId } : {}),
    ...settings.headers,
  };
  const models = Object.entries(settings.models).map(([model, own]): Model<"openai-completions"> => {
    if (model === "") throw new Error("a model needs an id, such as 'anthropic/claude-opus-4-8'");
    return {
      id: model,
      name: model,
      api: "openai-completions",
      provider: id,
      baseUrl: (settings.baseURL ?? "http://127.0.0.1:8080/v1").replace(/\/+$/, ""),
      headers,
      reasoning: false,
      input: ["text"],
      cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
      contextWindow: own.contextWindow ?? settings.contextWindow ?? 200_000,
      maxTokens: own.maxTokens ?? settings.maxTokens ?? 0,
    };
  });
  return createProvider({
    id,
    auth: { apiKey: { name: "Smithgate", resolve: async () => ({ auth: { apiKey: settings.apiKey } }) } },
    models,
    api: openAICompletionsApi(),
  });
}
