// The packets of the panes' connections, newest last.

const MAX_LINES = 200;
const MAX_TEXT = 400;

/** Lists in `root` what each pane's connection carries. */
export function showPackets(root, panes) {
  const list = root.querySelector(".frames");
  for (const pane of panes) {
    const { io } = pane.socket;
    const follow = () => {
      const { engine } = io;
      engine.on("packet", (packet) => add(list, pane.name, "←", packet));
      engine.on("packetCreate", (packet) => add(list, pane.name, "→", packet));
    };
    // Each connection has an engine of its own; the first may be there already.
    if (io.engine) follow();
    io.on("open", () => io.engine.listeners("packetCreate").length === 0 && follow());
    io.on("reconnect_attempt", () => queueMicrotask(() => io.engine.listeners("packetCreate").length === 0 && follow()));
  }
}

const TYPES = { open: 0, close: 1, ping: 2, pong: 3, message: 4, upgrade: 5, noop: 6 };

function add(list, name, direction, { type, data }) {
  const text = `${TYPES[type] ?? type}${typeof data === "string" ? data : data === undefined ? "" : "[binary]"}`;
  const item = document.createElement("li");
  const cells = [name, direction, text.slice(0, MAX_TEXT), age(text)];
  item.append(...cells.map((value, index) => {
    const cell = document.createElement("span");
    cell.className = ["who", "way", "packet", "age"][index];
    cell.textContent = value;
    return cell;
  }));
  if (type === "ping" || type === "pong") item.classList.add("quiet");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(item);
  while (list.children.length > MAX_LINES) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

/** Of a counted event: milliseconds since it was published. */
function age(text) {
  const at = /^42.*"at":(\d{13})/.exec(text)?.[1];
  return at ? `${Math.max(0, Date.now() - Number(at))} ms` : "";
}
