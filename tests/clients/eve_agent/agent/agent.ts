// An agent of eve's whose model is a smith.
import { createOpenAI } from "@ai-sdk/openai";
import { defineAgent } from "eve";

const { BASE_URL, SMITH_TOKEN } = process.env;
const smith = createOpenAI({ name: "smithgate", apiKey: SMITH_TOKEN, baseURL: BASE_URL });

export default defineAgent({ model: smith.responses("anthropic/loop"), modelContextWindowTokens: 100_000 });
