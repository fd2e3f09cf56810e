// Worklamp's API: controllers write, then emit with @socket.io/redis-emitter.
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";
import { HttpError, httpPublisher, Service } from "../service.mjs";

/** Kind of entity → the events that its controller emits, and their room. */
const EVENTS = {
  tasks: { room: "project", created: "task:created", updated: "task:updated", deleted: "task:deleted" },
  bugs: { room: "project", created: "bug:created", updated: "bug:updated" },
  features: { room: "project", created: "feature:created", updated: "feature:updated" },
  messages: { room: "channel", created: "message:created" },
};

class Backend extends Service {
  /** `project:1` → its members */
  members = new Map();
  things = new Map();
  nextId = 1;

  constructor({ secrets, redis, roomcastUrl, key }) {
    super(secrets);
    this.redis = redis;
    this.io = new Emitter(redis);
    this.roomcast = httpPublisher(roomcastUrl, key);
    for (const kind of Object.keys(EVENTS)) {
      const { room } = EVENTS[kind];
      this.route("POST", `/${room}s/:where/${kind}`, (request) => this.write(kind, "created", request));
      this.route("POST", `/${room}s/:where/${kind}/:id`, (request) => this.write(kind, "updated", request));
      this.route("DELETE", `/${room}s/:where/${kind}/:id`, (request) => this.write(kind, "deleted", request));
    }
    this.route("POST", "/notifications/:userId", ({ claims, params, body }) => {
      if (claims.role !== "admin") throw new HttpError(403, "admins only");
      this.io.to(`user:${params.userId}`).emit("notification:new", { title: body.title });
    });
    this.route("GET", "/:room/:where/viewers", ({ claims, params }) => this.viewers(claims, params));
    // Authorized by claims: guests see no channels.
    this.webhook({
      join: ({ user, claims, room }) => {
        const [, tenant, kind, id] = room.split(":");
        if (claims.role === "guest" && kind === "channel") return { allow: false, error: "guests see no channels" };
        const allowed = tenant === claims.tenantId && this.may(user, claims, kind, id);
        return allowed ? { allow: true } : { allow: false, error: `no access to this ${kind}` };
      },
    });
  }

  may = (user, claims, kind, id) => this.members.get(`${claims.tenantId} ${kind}:${id}`)?.includes(user) ?? false;

  write(kind, change, { user, claims, params: { where, id }, body }) {
    const { room, [change]: event } = EVENTS[kind];
    if (!event) throw new HttpError(404, `${kind} are not ${change}`);
    if (!this.may(user, claims, room, where)) throw new HttpError(403, `no access to this ${room}`);
    const thing = { ...this.things.get(`${kind} ${id}`), ...body, id: id ? Number(id) : this.nextId++, by: user };
    if (change === "deleted") this.things.delete(`${kind} ${id}`);
    else this.things.set(`${kind} ${thing.id}`, thing);
    this.io.to(`tenant:${claims.tenantId}:${room}:${where}`).emit(event, change === "deleted" ? { id: thing.id } : thing);
    return thing;
  }

  /** How many users view it. */
  async viewers({ tenantId }, { room, where }) {
    const { users } = await this.roomcast.get(`/rooms/${encodeURIComponent(`tenant:${tenantId}:${room.slice(0, -1)}:${where}`)}`);
    return { count: users.length, users };
  }

  async close() {
    super.close();
    await this.redis.close();
  }
}

export async function startBackend({ redisUrl, ...options }) {
  const redis = await createClient({ url: redisUrl }).on("error", () => {}).connect();
  return new Backend({ redis, ...options }).listen();
}
