/** `useChat` straight on the gateway, with a smith's own token and no server code. */
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";
import type { UIMessage } from "ai";

export interface TransportSettings {
  /** A smith's token; a function is asked before each call. */
  token: string | (() => string | Promise<string>);
  /** Up to and with `/v1`. */
  baseURL: string;
  /** The thread that is remembered there. */
  threadId?: string;
  headers?: Record<string, string>;
  body?: Record<string, unknown>;
  fetch?: typeof fetch;
}

/** The transport to give to `useChat`; `resume: true` goes on after a reload. */
export function smithgateTransport<M extends UIMessage = UIMessage>(settings: TransportSettings): DefaultChatTransport<M> {
  return new DefaultChatTransport<M>({
    api: `${settings.baseURL.replace(/\/+$/, "")}/ui/chat`,
    headers: async () => ({
      authorization: `Bearer ${typeof settings.token === "function" ? await settings.token() : settings.token}`,
      ...(settings.threadId ? { "IC-Thread-Id": settings.threadId } : {}),
      ...settings.headers,
    }),
    ...(settings.body ? { body: settings.body } : {}),
    ...(settings.fetch ? { fetch: settings.fetch } : {}),
  });
}

/** For `sendAutomaticallyWhen`: sends once every approval has its answer. */
export const approvalsSettled = lastAssistantMessageIsCompleteWithApprovalResponses;
