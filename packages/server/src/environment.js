/**
 * An environment variable, where the runtime has them and lets us read them: Deno may refuse.
 * @param {string} name
 * @returns {string | undefined}
 */
export function variable(name) {
  try {
    return /** @type {any} */ (globalThis).process?.env?.[name] || undefined;
  } catch {
    return undefined;
  }
}
