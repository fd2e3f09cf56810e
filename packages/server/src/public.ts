// What TypeScript sees of the package: the code and the types.
export * from "./index.js";
export type * from "./types.js";
