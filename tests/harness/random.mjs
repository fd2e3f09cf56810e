// Chance that can be had again: FAULT_SEED, which every run prints.

export const SEED = Number(process.env.FAULT_SEED ?? Math.floor(Math.random() * 1e9));
/** How long faults go on, at most: short in CI, an hour by FAULT_SECONDS=3600. */
export const SECONDS = Number(process.env.FAULT_SECONDS ?? 8);

/** A source of chance of its own for each name (mulberry32). */
export function chance(name) {
  let state = [...String(name)].reduce((hash, char) => Math.imul(hash ^ char.codePointAt(0), 16777619), SEED | 0);
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    below: (most) => Math.floor(next() * most),
    between: (low, high) => low + next() * (high - low),
    pick: (list) => list[Math.floor(next() * list.length)],
  };
}
