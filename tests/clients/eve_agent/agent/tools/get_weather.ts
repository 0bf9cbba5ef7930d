import { defineTool } from "eve/tools";
import { z } from "zod";

export default defineTool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
  async execute({ city }) {
    return `mild in ${city}`;
  },
});
