/** Native runs: the frames of a run as they come. */
import { z } from "zod";

const frame = { v: z.literal(1), run_id: z.string() };
const usage = z.looseObject({ input_tokens: z.number(), output_tokens: z.number(), total_tokens: z.number() });
/** What the text so far rests on: an annotation in the form of OpenAI's Responses, with what else the provider told. */
const citation = z.looseObject({ type: z.string(), url: z.string().optional(), title: z.string().optional(), file_id: z.string().optional(), filename: z.string().optional(), start_index: z.number().optional(), end_index: z.number().optional() });
const warnings = z.array(z.looseObject({ code: z.string(), message: z.string() }));

/** The data of each frame, by its name. */
export const frames = {
  "run.started": z.looseObject({ ...frame, smith_id: z.string(), thread_id: z.string() }),
  "message.delta": z.looseObject({ ...frame, delta: z.string() }),
  "message.completed": z.looseObject({ ...frame, content: z.string() }),
  "message.citation": z.looseObject({ ...frame, citation }),
  "reasoning.delta": z.looseObject({ ...frame, delta: z.string() }),
  "tool.args.delta": z.looseObject({ ...frame, tool_call_id: z.string(), delta: z.string() }),
  "tool.executing": z.looseObject({ ...frame, tool: z.string().nullable(), tool_call_id: z.string().optional() }),
  "tool.completed": z.looseObject({ ...frame, tool: z.string().nullable(), tool_call_id: z.string().optional() }),
  "approval.required": z.looseObject({ ...frame, approval_id: z.string(), tool: z.string(), tool_call_id: z.string(), args: z.record(z.string(), z.unknown()), elicitation: z.looseObject({}).optional() }),
  "run.paused": z.looseObject({ ...frame, status: z.string().optional() }),
  "run.completed": z.looseObject({ ...frame, stop_reason: z.string(), usage, warnings: warnings.optional() }),
  "run.failed": z.looseObject({ ...frame, error: z.string(), code: z.string().optional(), param: z.string().optional() }),
  "run.cancelled": z.looseObject({ ...frame, reason: z.string().optional() }),
  "run.duplicate": z.looseObject({ ...frame }),
} as const;

export type FrameName = keyof typeof frames;
/** One frame; `seq` is what `Last-Event-ID` takes to go on after it. */
export type Frame = { [N in FrameName]: { event: N; seq: number; data: z.infer<(typeof frames)[N]> } }[FrameName];

/** The frames that a stream ends with; one that ends without any of them was cut. */
export const LAST: ReadonlySet<FrameName> = new Set(["run.paused", "run.completed", "run.failed", "run.cancelled", "run.duplicate"]);

/** Server-sent events as they are dispatched. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<{ event: string; id: string; data: string }> {
  const reader = body.pipeThrough(new TextDecoderStream() as unknown as ReadableWritablePair<string, Uint8Array>).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      held = (held + (value ?? "")).replaceAll("\r\n", "\n");
      for (let end = held.indexOf("\n\n"); end >= 0; end = held.indexOf("\n\n")) {
        const lines = held.slice(0, end).split("\n");
        held = held.slice(end + 2);
        const of = (name: string) => lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).replace(/^ /, ""));
        const data = of("data");
        if (data.length > 0) yield { event: of("event").at(-1) ?? "message", id: of("id").at(-1) ?? "", data: data.join("\n") };
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** The frames of a streamed run; those of a later gateway, which are not known here, are left out. */
export async function* framesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<Frame> {
  for await (const { event, id, data } of events(body)) {
    if (!(event in frames)) continue;
    const name = event as FrameName;
    yield { event: name, seq: Number(id), data: frames[name].parse(JSON.parse(data)) } as Frame;
  }
}

export interface RunStreamOptions {
  /** The gateway, without `/v1`. */
  baseUrl: string;
  apiKey: string;
  smithId: string;
  signal?: AbortSignal;
  fetch?: typeof fetch;
}

async function stream(options: RunStreamOptions, path: string, init: RequestInit): Promise<ReadableStream<Uint8Array>> {
  const url = `${options.baseUrl.replace(/\/+$/, "")}/v1/smiths/${encodeURIComponent(options.smithId)}/runs${path}`;
  const headers = { authorization: `Bearer ${options.apiKey}`, ...(init.headers as Record<string, string>) };
  const response = await (options.fetch ?? fetch)(url, { ...init, headers, signal: options.signal });
  if (!response.ok || !response.body) {
    const error = (await response.json().catch(() => null)) as { error?: { code?: string; message?: string } } | null;
    throw new SmithgateError(response.status, error?.error?.code ?? `http_${response.status}`, error?.error?.message ?? response.statusText);
  }
  return response.body;
}

/** A refusal of the gateway's. */
export class SmithgateError extends Error {
  constructor(readonly status: number, readonly code: string, message: string) {
    super(message);
    this.name = "SmithgateError";
  }
}

/** Starts a run and follows it. */
export async function* streamRun(options: RunStreamOptions, run: Record<string, unknown>): AsyncGenerator<Frame> {
  const body = JSON.stringify({ ...run, stream: true });
  yield* framesOf(await stream(options, "", { method: "POST", body, headers: { "content-type": "application/json" } }));
}

/** Follows a run that was started before, behind the frame `after`. */
export async function* followRun(options: RunStreamOptions, runId: string, after?: number): AsyncGenerator<Frame> {
  const headers: Record<string, string> = after === undefined ? {} : { "last-event-id": String(after) };
  yield* framesOf(await stream(options, `/${encodeURIComponent(runId)}/events`, { method: "GET", headers }));
}
