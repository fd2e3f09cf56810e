const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });

/** "—" for what is not known. */
export const number = (value) => (value === undefined || value === null ? "—" : value < 1_000_000 ? whole.format(value) : short.format(value));
export const rate = (value) => (value === undefined ? "—" : value > 0 && value < 10 ? one.format(value) : number(Math.round(value)));

const UNITS = ["B", "KB", "MB", "GB", "TB"];
export function bytes(value) {
  if (value === undefined || value === null) return "—";
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) (value /= 1000), (unit += 1);
  return `${unit === 0 || value >= 100 ? Math.round(value) : one.format(value)} ${UNITS[unit]}`;
}

export function span(seconds) {
  if (seconds === undefined || seconds === null) return "—";
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

export const milliseconds = (value) => (value === undefined || value === null ? "—" : value < 1000 ? `${value} ms` : `${one.format(value / 1000)} s`);
export function ago(time) {
  if (!time) return "never";
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  return seconds < 2 ? "just now" : `${span(seconds)} ago`;
}
export const clock = (time) => new Date(time).toLocaleTimeString("en", { hour12: false, hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
export const plural = (count, word, words = `${word}s`) => `${number(count)} ${count === 1 ? word : words}`;
export const PROTOCOLS = { socketio: "Socket.IO", ws: "WebSocket API", sse: "SSE" };
export const TRANSPORTS = { websocket: "WebSocket", polling: "long-polling", sse: "SSE" };
export const carrier = (protocol, transport) => {
  if (protocol === "sse") return "SSE";
  if (protocol === "ws") return "plain WebSocket";
  return `${PROTOCOLS[protocol] ?? protocol ?? "—"}, ${TRANSPORTS[transport] ?? transport ?? "no connection"}`;
};
