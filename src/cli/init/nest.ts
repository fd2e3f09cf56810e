// roomcast from a Nest backend, written by `roomcast init --nest`. Add RoomcastService to `providers` and
// RoomcastController to `controllers`, and create the app with NestFactory.create(AppModule, { rawBody: true }).
import { Controller, HttpCode, Injectable, Post, RawBodyRequest, Req, UnauthorizedException } from "@nestjs/common";
import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";

const URL = process.env.ROOMCAST_URL ?? "http://127.0.0.1:8080";
const KEY = process.env.ROOMCAST_PUBLISH__KEYS?.split(",")[0];
const SECRET = process.env.ROOMCAST_BACKEND__SECRET;

type Call = { type: string; id: string; user: string | number | null; room?: string; event?: string; args?: unknown[] };

@Injectable()
export class RoomcastService {
  /** Sends an event to everybody in a room. Rejects where roomcast is away; a repeat with the same `id` is sent once. */
  async publish(room: string, event: string, data: unknown, id: string = randomUUID()): Promise<string | null> {
    const answer = await fetch(`${URL}/publish`, {
      method: "POST",
      headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json" },
      body: JSON.stringify({ room, event, data, id }),
      signal: AbortSignal.timeout(5000),
    });
    if (!answer.ok) throw new Error(`roomcast answered ${answer.status}: ${await answer.text()}`);
    return ((await answer.json()) as { offset: string | null }).offset;
  }
}

@Controller("roomcast")
export class RoomcastController {
  @Post()
  @HttpCode(200)
  async handle(@Req() request: RawBodyRequest<{ headers: Record<string, string>; rawBody?: Buffer }>) {
    const body = request.rawBody;
    if (!body || !isSigned(request.headers["x-roomcast-signature"], body)) throw new UnauthorizedException();
    const call = JSON.parse(body.toString()) as Call;
    if (call.type === "join") return { allow: await this.mayJoin(call) };
    return {};
  }

  /** Your rule: is this user a member of the chat? */
  private async mayJoin(call: Call): Promise<boolean> {
    return call.user !== null;
  }
}

function isSigned(header: string | undefined, body: Buffer): boolean {
  const [, time, tag] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(header ?? "") ?? [];
  if (!time || !tag || !SECRET || Math.abs(Date.now() / 1000 - Number(time)) > 300) return false;
  const expected = createHmac("sha256", SECRET).update(`${time}.`).update(body).digest();
  return timingSafeEqual(expected, Buffer.from(tag, "hex"));
}
