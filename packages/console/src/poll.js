// Asks again and again, while somebody looks.
import { useEffect, useRef, useState } from "preact/hooks";

/** Calls `tick` at once and `every` milliseconds after each end, while the page is visible. Returns how to stop, and `now`. */
export function repeat(tick, every) {
  let timer;
  let running = false;
  let stopped = false;
  const run = async () => {
    clearTimeout(timer);
    if (running || stopped || document.hidden) return;
    running = true;
    await tick();
    running = false;
    if (!stopped) timer = setTimeout(run, every);
  };
  document.addEventListener("visibilitychange", run);
  run();
  const stop = () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", run);
  };
  return { stop, now: run };
}

/** `{ data, problem, again }`: what `load(signal)` gave last. What was there stays until the next is there. */
export function usePoll(load, every, key) {
  const [state, setState] = useState({ key, data: undefined, problem: undefined });
  const loop = useRef();
  useEffect(() => {
    const abort = new AbortController();
    const tick = async () => {
      try {
        const data = await load(abort.signal);
        if (!abort.signal.aborted) setState({ key, data, problem: undefined });
      } catch (problem) {
        if (!abort.signal.aborted) setState((last) => ({ key, data: last.key === key ? last.data : undefined, problem }));
      }
    };
    loop.current = repeat(tick, every);
    return () => {
      abort.abort();
      loop.current.stop();
    };
  }, [key]);
  const current = state.key === key ? state : { data: undefined, problem: undefined };
  return { ...current, again: () => loop.current?.now() };
}
