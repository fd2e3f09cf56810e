// The three nodes: who is connected to which, and a button that kills it.

const LOOK_EVERY_MS = 500;

/** Shows the nodes in `root`, and keeps them up to date while the page is visible. */
export function showNodes(root, demo, panes) {
  root.hidden = false;
  const list = root.querySelector(".node-list");
  const cards = new Map();

  const look = async () => {
    if (document.hidden) return;
    const [nodes, homes] = await Promise.all([ask(`${demo.control}/nodes`), Promise.all(panes.map((pane) => homeOf(demo, pane)))]);
    for (const node of nodes?.nodes ?? []) {
      let card = cards.get(node.number);
      if (!card) cards.set(node.number, (card = newCard(list, demo, node.number)));
      const names = panes.filter((_, index) => node.node && homes[index] === node.node).map(({ name }) => name);
      card.update(node, names);
    }
  };
  setInterval(look, LOOK_EVERY_MS);
  look();
}

function newCard(list, demo, number) {
  const item = document.createElement("li");
  item.className = "node";
  const title = document.createElement("strong");
  title.textContent = `Node ${number}`;
  const state = document.createElement("span");
  state.className = "badge";
  const clients = document.createElement("span");
  clients.className = "soft clients";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Kill this node";
  button.setAttribute("aria-label", `Kill node ${number}`);
  button.addEventListener("click", () => {
    button.disabled = true;
    ask(`${demo.control}/kill/${number}`, { method: "POST" });
  });
  item.append(title, state, clients, button);
  list.append(item);
  return {
    update({ node }, names) {
      const up = node !== null;
      state.dataset.state = up ? "live" : "offline";
      state.textContent = up ? "up" : "killed, coming back";
      clients.textContent = !up ? "" : names.length > 0 ? `has ${names.join(" and ")}` : "has neither pane";
      button.disabled = !up;
    },
  };
}

/** The id of the node that has the pane's session, or null. */
async function homeOf(demo, { socket }) {
  if (!socket.connected) return null;
  const session = await ask(`/sessions/${encodeURIComponent(socket.id)}`, { headers: { authorization: `Bearer ${demo.key}` } });
  return session?.node ?? null;
}

const ask = (url, options) =>
  fetch(url, { cache: "no-store", ...options }).then((answer) => (answer.ok ? answer.json() : null)).catch(() => null);
