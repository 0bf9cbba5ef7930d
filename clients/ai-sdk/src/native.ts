/** Native run streams on their way into a UI message stream: tools show while they run. */

export interface NativeFrame {
  event: string;
  v?: number;
  run_id?: string;
  delta?: string;
  tool?: string | null;
  tool_call_id?: string;
  args?: Record<string, unknown>;
  approval_id?: string;
  stop_reason?: string;
  warnings?: { code: string; message: string }[];
  error?: string;
  reason?: string;
  [member: string]: unknown;
}

/** The frames of a native stream. Comments and what is no JSON are passed over. */
export async function* parseSmithgateSSE(body: ReadableStream<Uint8Array>): AsyncGenerator<NativeFrame> {
  const decoder = new TextDecoder();
  let held = "";
  for await (const piece of body as unknown as AsyncIterable<Uint8Array>) {
    held += decoder.decode(piece, { stream: true }).replaceAll("\r\n", "\n");
    for (let end = held.indexOf("\n\n"); end >= 0; end = held.indexOf("\n\n")) {
      const lines = held.slice(0, end).split("\n");
      held = held.slice(end + 2);
      const of = (name: string) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
      const data = of("data").join("\n");
      if (data === "") continue;
      try {
        yield { event: of("event").at(-1) ?? "message", ...JSON.parse(data) };
      } catch {
        continue;
      }
    }
  }
}

export interface RunOutcome {
  runId: string;
  status: "completed" | "paused" | "failed" | "cancelled" | "unknown";
  text: string;
  stopReason?: string;
  error?: string;
  reason?: string;
  warnings?: { code: string; message: string }[];
  approvals: { approvalId: string; id: string; tool: string; toolCallId: string; args: Record<string, unknown> }[];
}

/** What takes the parts of a UI message: the writer of the AI SDK's `createUIMessageStream`. */
export interface PartWriter {
  write(part: { type: "text-start" | "text-end"; id: string } | { type: "text-delta"; id: string; delta: string }): void;
}

export interface Listeners {
  onToolActivity?(activity: { tool: string | null; toolCallId?: string; state: "executing" | "completed" }): void;
  onApproval?(approval: RunOutcome["approvals"][number]): void;
}

/** Writes a run's text as parts and says how it went; a stream that was cut is `unknown`. */
export async function pipeSmithgateRun(response: Response, writer: PartWriter, listeners: Listeners = {}): Promise<RunOutcome> {
  if (!response.ok || !response.body) throw new Error(`the run was refused with status ${response.status}: ${await response.text()}`);
  const outcome: RunOutcome = { runId: "", status: "unknown", text: "", approvals: [] };
  const id = "text";
  let open = false;
  for await (const frame of parseSmithgateSSE(response.body)) {
    outcome.runId = frame.run_id ?? outcome.runId;
    switch (frame.event) {
      case "message.delta":
        if (!frame.delta) break;
        if (!open) writer.write({ type: "text-start", id });
        open = true;
        outcome.text += frame.delta;
        writer.write({ type: "text-delta", id, delta: frame.delta });
        break;
      case "tool.executing":
      case "tool.completed":
        listeners.onToolActivity?.({ tool: frame.tool ?? null, toolCallId: frame.tool_call_id, state: frame.event === "tool.executing" ? "executing" : "completed" });
        break;
      case "approval.required": {
        const toolCallId = frame.tool_call_id ?? "";
        const approval = { approvalId: `${outcome.runId}::${toolCallId}`, id: frame.approval_id ?? "", tool: frame.tool ?? "", toolCallId, args: frame.args ?? {} };
        outcome.approvals.push(approval);
        listeners.onApproval?.(approval);
        break;
      }
      case "run.paused":
        outcome.status = "paused";
        break;
      case "run.completed":
        Object.assign(outcome, { status: "completed", stopReason: frame.stop_reason, warnings: frame.warnings });
        break;
      case "run.failed":
        Object.assign(outcome, { status: "failed", error: frame.error });
        break;
      case "run.cancelled":
        Object.assign(outcome, { status: "cancelled", reason: frame.reason });
        break;
    }
  }
  if (open) writer.write({ type: "text-end", id });
  return outcome;
}
