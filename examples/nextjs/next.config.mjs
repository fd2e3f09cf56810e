import path from "node:path";

// The package is linked from its folder in this repository. With one from npm these two lines go.
const root = path.join(import.meta.dirname, "../..");

export default {
  turbopack: { root },
  outputFileTracingRoot: root,
  // PostgreSQL as WebAssembly loads its own files, which a bundle would not have.
  serverExternalPackages: ["@electric-sql/pglite"],
};
