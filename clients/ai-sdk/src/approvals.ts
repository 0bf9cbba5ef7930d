/** Decisions on calls that wait for a human. An approval's id is `<run_id>::<tool_call_id>`. */

export type Decision = "approve" | "reject";

export interface ApprovalRequest {
  approvalId: string;
  runId: string;
  toolCallId: string;
  /** The tool's own name. */
  toolName: string;
  input: unknown;
}

/** Split at the first `::`: what follows may hold more of them. `null` for what is no approval. */
export function parseApprovalId(id: string): { runId: string; toolCallId: string } | null {
  const at = id.indexOf("::");
  return at > 0 && at + 2 < id.length ? { runId: id.slice(0, at), toolCallId: id.slice(at + 2) } : null;
}

export function buildApprovalId(runId: string, toolCallId: string): string {
  return `${runId}::${toolCallId}`;
}

type Part = { type: string; approvalId?: string; toolCall?: { toolName: string; input: unknown } };

/** What waits for a decision among the parts of an answer. */
export function getApprovalRequests(content: readonly Part[]): ApprovalRequest[] {
  return content.flatMap((part) => {
    const parsed = part.type === "tool-approval-request" && part.approvalId ? parseApprovalId(part.approvalId) : null;
    if (!parsed || !part.approvalId) return [];
    const toolName = (part.toolCall?.toolName ?? "").replace(/^mcp\./, "");
    return [{ ...parsed, approvalId: part.approvalId, toolName, input: part.toolCall?.input }];
  });
}

/** The messages that carry a decision back: the request as it was asked, and the answer to it. */
export function approvalResponseMessages(request: ApprovalRequest, decision: Decision) {
  const { approvalId, toolCallId, toolName, input } = request;
  return [
    {
      role: "assistant" as const,
      content: [
        { type: "tool-call" as const, toolCallId, toolName: `mcp.${toolName}`, input, providerExecuted: true },
        { type: "tool-approval-request" as const, approvalId, toolCallId },
      ],
    },
    {
      role: "tool" as const,
      content: [{ type: "tool-approval-response" as const, approvalId, approved: decision === "approve", providerExecuted: true }],
    },
  ];
}

/** The same as an input item of the Responses wire. */
export function approvalWireItem(approvalId: string, decision: Decision) {
  return { type: "mcp_approval_response" as const, approval_request_id: approvalId, approve: decision === "approve" };
}
