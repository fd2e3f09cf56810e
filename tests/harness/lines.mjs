// The lines of a log with partitions: where a room is, and the offsets in a client's place.
import { crc32 } from "node:zlib";
import { PARTITIONS } from "./config.mjs";

const SESSION_ID = /^[A-Za-z0-9_-]{20,}$/;

/** The line of an event to these rooms, which excepts others. */
export function lineOf(partitions, rooms, except = []) {
  if (partitions < 2) return 0;
  const of = (room) => (SESSION_ID.test(room) ? 0 : (crc32(room) % partitions) + 1);
  const [line, ...others] = [...new Set([...rooms, ...except].map(of))];
  return others.length === 0 ? line : 0;
}

/** The stream that has what is published to these rooms, as the tests run now. */
export function streamOf(...rooms) {
  const line = lineOf(PARTITIONS, rooms);
  return line ? `roomcast:events:{${line}}` : "roomcast:events";
}

/** All streams of the log, as the tests run now. */
export const streams = () => ["roomcast:events", ...Array.from({ length: PARTITIONS > 1 ? PARTITIONS : 0 }, (_, n) => `roomcast:events:{${n + 1}}`)];

/** What is the same in all offsets of an event, wherever it is named. */
export const eventOf = (offset) => offset.split(".")[0];

const base36 = (text) => [...text].reduce((number, digit) => number * 36n + BigInt(parseInt(digit, 36)), 0n);

/**
 * The offsets in a place by their line, that of its event first: `{ line, epoch, ms, seq, id }`. A stream id, which has no
 * epoch, is of the control line.
 */
export function parsePlace(text) {
  const [first, ...others] = String(text ?? "").split(".");
  const parts = /^(?:([0-9a-f]+)-)?(\d+)-(\d+)(?:_(\d+))?$/.exec(first);
  if (!parts) return new Map();
  const offset = (line, epoch, ms, seq) => [line, { line, epoch, ms, seq, id: `${ms}-${seq}` }];
  const home = BigInt(parts[2]);
  const rest = others.map((part) => {
    const [line, epoch, zigzag, seq] = part.split("_").map(base36);
    const later = zigzag & 1n ? -(zigzag >> 1n) - 1n : zigzag >> 1n;
    return offset(Number(line), epoch.toString(16), home + later, seq);
  });
  return new Map([offset(Number(parts[4] ?? 0), parts[1], home, BigInt(parts[3])), ...rest]);
}
