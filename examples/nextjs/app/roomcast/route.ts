import { createWebhook } from "@roomcast/server";
import { db } from "../../db";

export const POST = createWebhook({                       // ROOMCAST_BACKEND__SECRET
  join: ({ user, room }) => db.isMember(user, room),
}).fetch;
