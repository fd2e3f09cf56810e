// A chat pane: a stock socket.io-client. What the events do is said by the rules in src/demo/rules.rs.

const TYPING_EVERY_MS = 1500;
const TYPING_SHOWN_MS = 3000;
const RENEW_EVERY_MS = 2000;

export class Pane {
  /** `demo`: the facts of the page. `person`: who this pane is. */
  constructor(root, demo, { user, name, token }) {
    this.demo = demo;
    this.user = user;
    root.append(document.getElementById("pane").content.cloneNode(true));
    const find = (selector) => root.querySelector(selector);
    this.name = name;
    this.badge = find(".badge");
    this.toggle = find(".toggle");
    this.messages = find(".messages");
    this.members = find(".members");
    this.typing = find(".typing");
    this.input = find(".text");
    find(".avatar").textContent = name[0];
    find(".name").textContent = name;
    this.names = new Map(demo.people.map((person) => [person.user, person.name]));
    this.typers = new Map(); // name -> timer
    this.hasBeenLive = false;
    this.isOff = false;
    this.lastTyping = 0;
    this.renewedAt = -Infinity;

    // WebSocket first; where something between swallows it, the client goes on with long-polling.
    const options = { path: demo.path, auth: { token }, transports: demo.transports, tryAllTransports: true, forceNew: true };
    this.socket = io(options);
    this.follow();
    this.toggle.addEventListener("click", () => this.flip());
    find(".composer").addEventListener("submit", (event) => (event.preventDefault(), this.send()));
    this.input.addEventListener("input", () => this.tellTyping());
  }

  /** What the server and the connection say. */
  follow() {
    const { socket } = this;
    socket.on("connect", () => this.connected());
    socket.on("disconnect", () => this.lost());
    socket.on("connect_error", (error) => {
      if (socket.active) return this.show("reconnecting");
      // Refused by the server, so the client does not try again by itself.
      this.renew(error.message);
    });
    socket.io.on("reconnect_failed", () => this.giveUp());
    socket.on("message", ({ user, name, text }) => this.said(user, name, text));
    socket.on("typing", ({ name, typing }) => this.showTyping(name, typing));
    for (const change of ["joined", "left"]) socket.on(change, () => this.listMembers());
  }

  /** After a refusal: a demo that was started again has other secrets, and a page of before it needs a token of now. */
  async renew(refusal) {
    const wait = Math.max(0, this.renewedAt + RENEW_EVERY_MS - performance.now());
    this.renewedAt = performance.now() + wait;
    this.show("reconnecting");
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (this.isOff) return;
    try {
      const answer = await fetch("/demo/facts.json", { cache: "no-store" });
      const person = (await answer.json()).people.find(({ name }) => name === this.name);
      this.socket.auth = { token: person.token };
      this.socket.connect();
    } catch {
      this.note(`Refused: ${refusal}. No fresh token could be had; reload this page.`);
      this.giveUp();
    }
  }

  connected() {
    if (this.hasBeenLive) this.note(this.socket.recovered ? "Back, with everything that was said meanwhile." : "Back, in a new session.");
    this.hasBeenLive = true;
    this.show("live");
    this.listMembers();
  }

  lost() {
    this.members.replaceChildren();
    this.typers.forEach(clearTimeout);
    this.typers.clear();
    this.listTypers();
    this.show(this.isOff || !this.socket.active ? "offline" : "reconnecting");
  }

  giveUp() {
    this.isOff = true;
    this.show("offline");
  }

  /** Offline and online again. Offline is a lost connection, not a goodbye: the session can be taken up again. */
  flip() {
    this.isOff = !this.isOff;
    if (!this.isOff) {
      this.show("reconnecting");
      this.socket.io.reconnection(true);
      this.socket.connect();
    } else if (this.socket.connected) {
      this.socket.io.reconnection(false);
      this.socket.io.engine.close();
    } else {
      this.socket.disconnect();
      this.show("offline");
    }
  }

  /** `live`, `reconnecting` or `offline`. */
  show(state) {
    this.toggle.textContent = state === "offline" ? "Go online" : "Go offline";
    this.badge.dataset.state = state;
    this.badge.textContent = state;
  }

  send() {
    const text = this.input.value.trim();
    if (!text) return;
    this.input.value = "";
    this.lastTyping = 0;
    // What is written offline waits in the client; the room's order decides where it appears.
    const waiting = this.socket.connected ? undefined : this.bubble("message own waiting", "waiting for the connection", text);
    this.socket.emit("message", { room: this.demo.room, text }, (answer) => {
      waiting?.remove();
      if (!answer.ok) this.note(`Not sent: ${answer.error}`);
    });
  }

  said(user, name, text) {
    const who = String(name ?? user ?? "somebody");
    const kind = user === undefined ? "message outside" : who === this.name ? "message own" : "message";
    this.showTyping(who, false);
    this.bubble(kind, who === this.name ? "you" : who, typeof text === "string" ? text : JSON.stringify(text));
  }

  bubble(kind, by, text) {
    const item = document.createElement("li");
    item.className = kind;
    const [who, said] = [document.createElement("span"), document.createElement("div")];
    [who.className, said.className] = ["by", "said"];
    [who.textContent, said.textContent] = [by, text];
    item.append(who, said);
    return this.add(item);
  }

  note(text) {
    const item = document.createElement("li");
    item.className = "note";
    item.textContent = text;
    return this.add(item);
  }

  /** Scrolls along, unless the reader has scrolled up. */
  add(item) {
    const { messages } = this;
    const atEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 60;
    messages.append(item);
    if (atEnd) messages.scrollTop = messages.scrollHeight;
    return item;
  }

  tellTyping() {
    const now = performance.now();
    if (this.lastTyping && now - this.lastTyping < TYPING_EVERY_MS) return;
    this.lastTyping = now;
    this.socket.volatile.emit("typing", { room: this.demo.room, typing: this.input.value !== "" });
  }

  showTyping(name, typing) {
    clearTimeout(this.typers.get(name));
    this.typers.delete(name);
    const stop = () => (this.typers.delete(name), this.listTypers());
    if (typing) this.typers.set(name, setTimeout(stop, TYPING_SHOWN_MS));
    this.listTypers();
  }

  listTypers() {
    const names = [...this.typers.keys()];
    this.typing.textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing…` : "";
  }

  /** Who is in the room by presence, which counts over all nodes. */
  async listMembers() {
    const asked = (this.asked = (this.asked ?? 0) + 1);
    const room = `/rooms/${encodeURIComponent(this.demo.fullRoom)}`;
    const answer = await fetch(room, { headers: { authorization: `Bearer ${this.demo.key}` } }).catch(() => null);
    if (!answer?.ok || asked !== this.asked || !this.socket.connected) return;
    const { users } = await answer.json();
    const chips = users.map((user) => {
      const chip = document.createElement("li");
      const name = this.names.get(user) ?? user;
      chip.textContent = user === this.user ? `${name} (you)` : name;
      return chip;
    });
    this.members.replaceChildren(...chips);
  }
}
