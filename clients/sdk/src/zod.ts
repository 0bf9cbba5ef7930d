/** The schemas of everything that the API takes and gives, to check it at run time. */
export * from "./generated/zod.gen.js";
