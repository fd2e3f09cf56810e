// The REST API. What happens is saved and queued for roomcast in one transaction, then published.
import express from "express";

const LONGEST_NAME = 40;
const LONGEST_TEXT = 4000;

const roomOf = (userId) => `user:${userId}`;

export function api({ database, store, sessions, realtime, realtimeUrl }) {
  const routes = express.Router();
  routes.use(express.json());

  const signedIn = async (user) => ({ user, realtimeUrl, ...(await sessions.issue(user)) });

  routes.post("/sign-in", async (request, response) => {
    const name = textOf(request.body?.name, LONGEST_NAME, "name");
    response.json(await signedIn(store.userNamed(name)));
  });

  routes.use(sessions.required);

  // A page asks for a fresh token long before its old one expires.
  routes.post("/renew", async (request, response) => {
    const user = store.user(request.userId);
    if (!user) return response.status(401).json({ error: "sign in first" });
    response.json(await signedIn(user));
  });

  routes.get("/users", (request, response) => {
    response.json(store.users().filter(({ id }) => id !== request.userId));
  });

  // Who is online is roomcast's to say; until it answers, nobody is.
  routes.get("/presence", async (request, response) => {
    const contacts = store.contacts(request.userId);
    const known = await realtime.presence(contacts.map(({ id }) => id)).catch(() => []);
    response.json(
      contacts.map(({ id, lastSeen }, at) => ({
        userId: id,
        online: known[at]?.online ?? false,
        lastSeen: known[at]?.last_seen ?? lastSeen,
      })),
    );
  });

  routes.get("/conversations", (request, response) => {
    response.json(store.conversations(request.userId));
  });

  routes.post("/conversations", (request, response) => {
    const others = [].concat(request.body?.userIds ?? []).map(String);
    const userIds = [...new Set([request.userId, ...others])];
    if (userIds.length < 2 || !userIds.every((id) => store.user(id))) throw wrong(400, "`userIds` names nobody, or a stranger");
    const id = database.transaction(() => {
      const conversationId = store.conversationOf(userIds);
      tellUnread(conversationId, userIds);
      return conversationId;
    });
    realtime.wake();
    response.status(201).json(store.conversation(id, request.userId));
  });

  // Everything below is for participants only.
  routes.param("id", (request, response, next, id) => {
    request.conversationId = Number(id);
    if (!store.isParticipant(request.conversationId, request.userId)) throw wrong(404, "no such conversation");
    next();
  });

  routes.get("/conversations/:id/messages", (request, response) => {
    response.json(store.messages(request.conversationId));
  });

  routes.post("/conversations/:id/messages", (request, response) => {
    const { conversationId, userId } = request;
    const text = textOf(request.body?.text, LONGEST_TEXT, "text");
    const clientId = textOf(request.body?.clientId, 100, "clientId");
    const message = database.transaction(() => {
      const added = store.addMessage(conversationId, userId, { clientId, text });
      if (added.isNew) {
        realtime.queue([`conversation:${conversationId}`], "message:new", added.message);
        tellUnread(conversationId, store.participants(conversationId).map(({ id }) => id));
      }
      return added.message;
    });
    realtime.wake();
    response.status(201).json(message);
  });

  routes.post("/conversations/:id/read", (request, response) => {
    const { conversationId, userId } = request;
    const messageId = Number(request.body?.messageId);
    if (!Number.isSafeInteger(messageId)) throw wrong(400, "`messageId` is missing");
    database.transaction(() => {
      if (!store.markRead(conversationId, userId, messageId)) return;
      const rooms = store.participants(conversationId).map(({ id }) => roomOf(id));
      realtime.queue(rooms, "conversation:read", { conversationId, userId, lastReadId: messageId });
      tellUnread(conversationId, [userId]);
    });
    realtime.wake();
    response.json(store.conversation(conversationId, userId));
  });

  /** Each participant's own view, with their own count, goes to their own room. */
  function tellUnread(conversationId, userIds) {
    for (const userId of userIds) {
      realtime.queue([roomOf(userId)], "conversation:update", store.conversation(conversationId, userId));
    }
  }

  return routes;
}

const wrong = (status, message) => Object.assign(new Error(message), { status, expose: true });

function textOf(value, longest, name) {
  const text = typeof value === "string" ? value.trim() : "";
  if (text === "" || text.length > longest) throw wrong(400, `\`${name}\` must be a text of 1 to ${longest} characters`);
  return text;
}
