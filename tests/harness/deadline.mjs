// Waiting for a condition with a deadline, never for a fixed time.

/** The default deadline, in milliseconds: long on a slow machine that others share, and shorter than the pings that come after 25 s. */
export const DEADLINE = 20_000;
const POLL_EVERY = 5;

// A machine that is paused, or busy with others, stops this process too: what it waits for has not had that time either.
// Deadlines are of a clock that leaves out what is more than `LATE` between two ticks.
const TICK_EVERY = 20;
const LATE = 100;
let leftOut = 0;
let ticked = performance.now();
const note = () => {
  const now = performance.now();
  leftOut += Math.max(0, now - ticked - LATE);
  ticked = now;
  return now;
};
setInterval(note, TICK_EVERY).unref();
const clock = () => note() - leftOut;

/** A function that says for how many milliseconds this process could run since now. */
export function stopwatch() {
  const begun = clock();
  return () => clock() - begun;
}

const pause = () => new Promise((resolve) => setTimeout(resolve, POLL_EVERY));

/** The first truthy value of `condition`, which may be async; fails with `what` at the deadline. */
export async function until(condition, what, deadline = DEADLINE) {
  const end = clock() + deadline;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (clock() > end) {
      throw new Error(`not within ${deadline} ms: ${typeof what === "function" ? await what() : what}`);
    }
    await pause();
  }
}

/** The promise's value, or an error at the deadline. */
export function within(promise, what, deadline = DEADLINE) {
  const end = clock() + deadline;
  let timer;
  const late = new Promise((_, reject) => {
    const look = () => {
      const rest = end - clock();
      if (rest > 0) timer = setTimeout(look, rest);
      else reject(new Error(`not within ${deadline} ms: ${what}`));
    };
    timer = setTimeout(look, deadline);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
