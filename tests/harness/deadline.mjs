// Waiting for a condition with a deadline, never for a fixed time.

/** The default deadline, in milliseconds. */
export const DEADLINE = 10_000;
const POLL_EVERY = 5;

const pause = () => new Promise((resolve) => setTimeout(resolve, POLL_EVERY));

/** The first truthy value of `condition`, which may be async; fails with `what` at the deadline. */
export async function until(condition, what, deadline = DEADLINE) {
  const end = Date.now() + deadline;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) {
      throw new Error(`not within ${deadline} ms: ${typeof what === "function" ? await what() : what}`);
    }
    await pause();
  }
}

/** The promise's value, or an error at the deadline. */
export function within(promise, what, deadline = DEADLINE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${deadline} ms: ${what}`)), deadline);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
