// Random numbers that can be repeated: FAULT_SEED, which every run prints.

export const SEED = Number(process.env.FAULT_SEED ?? Math.floor(Math.random() * 1e9));
/** For how many seconds faults are repeated: few in CI, an hour with FAULT_SECONDS=3600. */
export const SECONDS = Number(process.env.FAULT_SECONDS ?? 8);

/** An independent random generator for each name (mulberry32). */
export function chance(name, seed = SEED) {
  let state = [...String(name)].reduce((hash, char) => Math.imul(hash ^ char.codePointAt(0), 16777619), seed | 0);
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    below: (max) => Math.floor(next() * max),
    between: (low, high) => low + next() * (high - low),
    pick: (list) => list[Math.floor(next() * list.length)],
  };
}
