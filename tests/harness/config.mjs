// The configuration of nodes: from objects to TOML.

/** The default HS256 secret and publish key of a node. */
export const SECRET = "an e2e secret of more than thirty-two bytes";
export const KEY = "e2e-publish-key-0123456789";

// With it, every log in Redis has so many partitions.
export const PARTITIONS = Number(process.env.ROOMCAST_PARTITIONS ?? 0);

const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isTables = (value) => Array.isArray(value) && value.length > 0 && value.every(isTable);
const key = (name) => (/^[A-Za-z0-9_-]+$/.test(name) ? name : JSON.stringify(name));

function inline(value) {
  if (Array.isArray(value)) return `[${value.map(inline).join(", ")}]`;
  if (isTable(value)) return `{ ${Object.entries(value).map(([name, item]) => `${key(name)} = ${inline(item)}`).join(", ")} }`;
  return JSON.stringify(value);
}

/** TOML of an object: plain values first, then tables, then `[[…]]` for lists of tables. */
export function toml(config) {
  const entries = Object.entries(config).filter(([, value]) => value !== undefined);
  const lines = entries.filter(([, v]) => !isTable(v) && !isTables(v)).map(([name, v]) => `${key(name)} = ${inline(v)}`);
  for (const [name, table] of entries.filter(([, v]) => isTable(v))) {
    lines.push(`[${name}]`);
    for (const [inner, value] of Object.entries(table)) {
      if (value !== undefined) lines.push(`${key(inner)} = ${inline(value)}`);
    }
  }
  for (const [name, tables] of entries.filter(([, v]) => isTables(v))) {
    for (const table of tables) {
      lines.push(`[[${name}]]`, ...Object.entries(table).map(([inner, value]) => `${key(inner)} = ${inline(value)}`));
    }
  }
  return lines.join("\n") + "\n";
}

/**
 * The rules of most tests. Users are in their own room and may join `room:…`. The events `join`, `leave` and `say` name a
 * room without `room:`, since a value in a room name cannot contain a colon. `sneak` tries to join a denied room.
 */
const RULES = {
  rooms: [
    { match: "user:{user}", join: "auto" },
    { match: "room:<name>", join: "allow" },
    { match: "closed:*", join: "deny" },
  ],
  on: [
    { event: "join", join: "room:{0}", ack: [{ ok: true }] },
    { event: "leave", leave: "room:{0}", ack: [{ ok: true }] },
    { event: "sneak", join: "closed:{0}" },
    { event: "echo", reply: { event: "echoed", args: ["{args}"] }, ack: ["{args}"] },
    { event: "say", emit: [{ room: "room:{0}", event: "said", args: ["{user}", "{1}"] }], ack: [{ ok: true }] },
  ],
};

/** A whole configuration: `overrides` replaces top-level values and is merged into tables, one level deep. */
export function configure(overrides = {}) {
  const base = {
    auth: { secret: SECRET },
    publish: { keys: [KEY] },
    shutdown: { pause: "0s", drain: "100ms", timeout: "1s" },
    limits: { events_per_second: 100_000, joins_per_second: 100_000, user_joins_per_second: 0 },
    ...RULES,
  };
  const merged = { ...base, ...overrides };
  for (const [name, table] of Object.entries(base)) {
    if (isTable(table) && isTable(overrides[name])) merged[name] = { ...table, ...overrides[name] };
  }
  if (PARTITIONS && merged.redis?.url) merged.redis = { partitions: PARTITIONS, ...merged.redis };
  return merged;
}
