/** Smiths as models of eve agents: `defineAgent({ model: smithgateModel({ … }) })`. */
import { createSmithgate } from "@smithgate/ai-sdk";
import type { SmithgateSettings } from "@smithgate/ai-sdk";

export { approvalResponseMessages, approvalWireItem, buildApprovalId, getApprovalRequests, parseApprovalId } from "@smithgate/ai-sdk";

export interface SmithgateModelSettings extends SmithgateSettings {
  /** Absent: the smith's own model. */
  modelId?: string;
}

/** The model of an agent. */
export function smithgateModel(settings: SmithgateModelSettings): ReturnType<ReturnType<typeof createSmithgate>> {
  return createSmithgate(settings)(settings.modelId ?? "");
}
