// The types of the package. There is no code here.

/**
 * Event names and what they carry: `{ new_message: Message }`, or as Socket.IO writes it, which also allows several
 * arguments: `{ moved: (x: number, y: number) => void }`.
 */
export type AnyEvents = Record<string, any>;

export type EventName<Events> = keyof Events & string;

type IsAny<T> = 0 extends 1 & T ? true : false;

/** The arguments of an event. `undefined` and `void` are none; of an untyped event there may be any. */
export type ArgsOf<Events, Name extends keyof Events> =
  IsAny<Events[Name]> extends true
    ? any[]
    : Events[Name] extends (...args: infer Args) => unknown
      ? Args
      : [Events[Name]] extends [undefined | void]
        ? []
        : [data: Events[Name]];

/** For the client: `const socket: Socket<ListenEvents<Events>> = io(…)`. */
export type ListenEvents<Events> = { [Name in keyof Events]: (...args: ArgsOf<Events, Name>) => void };

export interface EventOptions {
  /** Members of these rooms do not get it. At most 100. */
  except?: string[];
  /** Default `/`. */
  namespace?: string;
  /** Neither stored nor replayed. Not retried either: by then it would be stale. */
  volatile?: boolean;
  /** Makes repeats safe for 5 minutes. Default: a random UUID. */
  id?: string;
}

type Target = { room: string; rooms?: never } | { rooms: string[]; room?: never };

type Payload<Args extends unknown[]> = Args extends []
  ? { data?: never; args?: [] }
  : Args extends [infer Data]
    ? { data: Data; args?: never } | { args: Args; data?: never }
    : { args: Args; data?: never };

type AnyPayload = { data?: any; args?: never } | { args: any[]; data?: never };

type Named<Events, Name extends EventName<Events>> = { event: Name } & (IsAny<Events[Name]> extends true
  ? AnyPayload
  : Payload<ArgsOf<Events, Name>>);

/** What `POST /publish` takes. */
export type RoomcastEvent<Events = AnyEvents> = {
  [Name in EventName<Events>]: Target & EventOptions & Named<Events, Name>;
}[EventName<Events>];

/** An event in a webhook's answer: it goes to the namespace of the caller. */
export type EmittedEvent<Events = AnyEvents> = {
  [Name in EventName<Events>]: Target & Pick<EventOptions, "except" | "volatile"> & { id?: never; namespace?: never } & Named<Events, Name>;
}[EventName<Events>];

/** The log has the event. */
export interface Published {
  /** Its place in the log; null for a volatile event. */
  offset: string | null;
  /** `replicated:N`, where `redis.min_replicas` is set. */
  durability?: string;
}

/** What follows the name of an event in `publish(room, event, …)`. */
type Rest<Args extends unknown[]> = Args extends []
  ? [data?: undefined, options?: EventOptions & CallOptions]
  : Args extends [infer Data]
    ? [data: Data, options?: EventOptions & CallOptions]
    : never;

type AnyRest = [data?: any, options?: EventOptions & CallOptions];

export interface Publish<Events = AnyEvents> {
  /**
   * Sends an event with one argument, or none, to everybody in a room, or in any of several. Rejects with a
   * RoomcastError if roomcast is away: to lose nothing then, use an Outbox.
   */
  <Name extends EventName<Events>>(
    room: string | string[],
    event: Name,
    ...rest: IsAny<Events[Name]> extends true ? AnyRest : Rest<ArgsOf<Events, Name>>
  ): Promise<Published>;
  /** Sends an event as `POST /publish` takes it, which may have several arguments. */
  (event: RoomcastEvent<Events>, options?: CallOptions): Promise<Published>;
}

export interface RoomcastOptions {
  /** Where `listen` (or `admin_listen`) is. Default: `ROOMCAST_URL`, or `http://127.0.0.1:8080`. */
  url?: string;
  /** One of `publish.keys`. Default: the first of `ROOMCAST_PUBLISH__KEYS`. */
  key?: string;
  /** Milliseconds of one attempt. Default 5000, more than `redis.timeout`. */
  timeout?: number;
  /** Attempts after the first. Default 3, over about a second. */
  retries?: number;
  /** Default: the global one. */
  fetch?: typeof fetch;
}

export interface CallOptions {
  /** Ends the call, also while it waits for its next attempt. */
  signal?: AbortSignal;
}

/** Exactly one of the three: all sessions of a user, one session, everybody in a room. */
export type Whom =
  | { user: string | number; session?: never; in?: never }
  | { session: string; user?: never; in?: never }
  | { in: string; user?: never; session?: never };

export type RoomCommand = Whom & Target & { namespace?: string };

export type DisconnectCommand = Whom & { namespace?: string };

export interface CommandResult {
  /** On how many sessions of all nodes it was carried out. */
  sessions: number;
  /** Nodes that did not confirm within 2 s. They carry it out when they go on. */
  nodes_pending?: number;
}

/** All tokens of a user that were issued until now, or one token. */
export type RevokeCommand = ({ user: string | number; jti?: never } | { jti: string; user?: never }) & {
  /** As long as the longest of your tokens is valid, like `1h`; at most `31d`. Default: `auth.revoke_for`, 24 hours. */
  for?: string;
};

export interface RevokeResult extends CommandResult {
  /** RFC 3339: until then the tokens are refused. */
  until: string;
}

export interface RoomPresence {
  room: string;
  namespace: string;
  connections: number;
  users: string[];
  /** Nodes that did not answer within 2 s. */
  nodes_pending?: number;
}

export interface UserPresence {
  user: string;
  online: boolean;
  connections: number;
  /** RFC 3339; null while online, and when it is not remembered. */
  last_seen: string | null;
}

// ---- Webhooks

interface CallBase {
  /** The same in a repeat of the same request. */
  id: string;
  /** RFC 3339. */
  time: string;
}

interface SessionCall extends CallBase {
  /** As it stands in the token; null for an anonymous client. */
  user: string | number | null;
  claims: Record<string, any>;
  namespace: string;
  session: string;
  /** Rooms that the session is in. */
  rooms: string[];
}

export interface JoinCall extends SessionCall {
  type: "join";
  /** The room to be joined. */
  room: string;
}

export interface EventCall<Args extends unknown[] = any[]> extends SessionCall {
  type: "event";
  event: string;
  args: Args;
}

export interface ConnectCall extends SessionCall {
  type: "connect";
}

export interface DisconnectCall extends SessionCall {
  type: "disconnect";
  reason: string;
}

export interface OnlineCall extends CallBase {
  type: "online";
  user: string;
}

export interface OfflineCall extends CallBase {
  type: "offline";
  user: string;
  last_seen: string;
}

export interface OccupiedCall extends CallBase {
  type: "occupied";
  room: string;
  namespace: string;
}

export interface VacatedCall extends CallBase {
  type: "vacated";
  room: string;
  namespace: string;
}

/** What roomcast posts to `backend.url`. */
export type Call =
  | JoinCall
  | EventCall
  | ConnectCall
  | DisconnectCall
  | OnlineCall
  | OfflineCall
  | OccupiedCall
  | VacatedCall;

export type JoinAnswer = boolean | { allow: true } | { allow: false; error?: string };

/** An event to the caller alone. */
export type Reply<Events = AnyEvents> = {
  [Name in EventName<Events>]: { event: Name; args: ArgsOf<Events, Name> };
}[EventName<Events>];

export interface EventAnswer<Events = AnyEvents> {
  /** Arguments of the acknowledgement. Without it the rule's `ack` is used. */
  ack?: unknown[] | null;
  /** The event is refused, and nothing else happens. */
  error?: string | null;
  reply?: Reply<Events>[] | null;
  emit?: EmittedEvent<Events>[] | null;
  join?: string[] | null;
  leave?: string[] | null;
}

type Awaitable<T> = T | Promise<T>;

export interface WebhookOptions<ClientEvents = AnyEvents, Events = AnyEvents> {
  /** `backend.secret`, or several while it is being changed. Default: `ROOMCAST_BACKEND__SECRET`. */
  secret?: string | string[];
  /** Seconds that a signature may be old, or ahead. Default 300. */
  tolerance?: number;
  /** May this user into `call.room`? Without it nobody may. */
  join?: (call: JoinCall) => Awaitable<JoinAnswer>;
  /** Forwarded events by name. Those without a handler are refused. */
  events?: {
    [Name in EventName<ClientEvents>]?: (
      call: EventCall<ArgsOf<ClientEvents, Name>>,
    ) => Awaitable<EventAnswer<Events> | void>;
  };
  connect?: (call: ConnectCall) => unknown;
  disconnect?: (call: DisconnectCall) => unknown;
  online?: (call: OnlineCall) => unknown;
  offline?: (call: OfflineCall) => unknown;
  occupied?: (call: OccupiedCall) => unknown;
  vacated?: (call: VacatedCall) => unknown;
  /** A handler failed, or the body cannot be read. roomcast gets a 500. Default: `console.error`. */
  onError?: (error: unknown, call?: Call) => void;
}

/** The parts of `node:http`'s request that are used; Express and Nest have them. */
export interface NodeRequest extends AsyncIterable<any> {
  method?: string;
  headers: Record<string, string | string[] | undefined>;
}

export interface NodeResponse {
  statusCode: number;
  setHeader(name: string, value: string): unknown;
  end(body: string): unknown;
}

export interface Webhook {
  /** For Fetch servers: `export const POST = webhook.fetch` in Next, `Bun.serve({ fetch })`, Deno, Hono. */
  fetch: (request: Request) => Promise<Response>;
  /** For `node:http` servers: `app.use("/roomcast", webhook.express)` before `express.json()`; also in Nest. */
  express: (request: NodeRequest, response: NodeResponse) => Promise<void>;
  /** A Fastify plugin: `app.register(webhook.fastify, { path: "/roomcast" })`. */
  fastify: (app: any, options?: { path?: string }) => Promise<void>;
  /** For everything else: the body as it came, and the value of `X-Roomcast-Signature`. */
  handle: (body: string | Uint8Array, signature: string | null | undefined) => Promise<{ status: number; body: string }>;
}

// ---- Outbox

/** An event as the outbox stores it: two texts. */
export interface OutboxEntry {
  /** Unique; roomcast sends a repeat of it once. */
  id: string;
  /** The event as JSON, to be given back unchanged. */
  event: string;
}

/**
 * The table of the outbox, which the application implements over its database. `Tx` is what its transactions are: a
 * client, a session, or nothing where there is one connection.
 */
export interface OutboxStore<Tx = unknown, Saved = void | Promise<void>> {
  /** Saves the entries in the transaction, so that they are committed with what they announce, or not at all. */
  save(transaction: Tx, entries: OutboxEntry[]): Saved;
  /** The oldest entries in the order of their saving, without those that were refused. */
  oldest(limit: number): Awaitable<OutboxEntry[]>;
  /** Deletes entries that roomcast has. */
  remove(ids: string[]): Awaitable<unknown>;
  /** Sets an entry aside that roomcast will never take, such as one over `publish.max_event`. */
  refuse(id: string, error: Error): Awaitable<unknown>;
  /**
   * With several processes: runs `work` under a lock that ends with the process, and answers true; or answers false
   * at once if another process has the lock. Without it all of them publish, which costs requests but no order.
   */
  exclusively?(work: () => Promise<void>): Promise<boolean>;
}

export interface OutboxOptions {
  /** Events of one request. Default 200, at most 1000. */
  batch?: number;
  /** Milliseconds after which entries of other processes are looked for. Default 5000. */
  every?: number;
  /** The longest pause between attempts, in milliseconds. Default 5000. */
  maxPause?: number;
  /** Publishing fails, and is tried again; called once until it works again. Default: `console.error`. */
  onError?: (error: Error) => void;
  /** Publishing works again. */
  onRecovery?: () => void;
}
