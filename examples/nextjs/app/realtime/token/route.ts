import { SignJWT } from "jose";
import { currentUser } from "../../../session";

export async function GET() {
  const user = await currentUser();
  if (!user) return new Response(null, { status: 401 });
  const token = await new SignJWT({})
    .setProtectedHeader({ alg: "HS256" })
    .setSubject(user.id)
    .setExpirationTime("10m")
    .sign(new TextEncoder().encode(process.env.JWT_SECRET));
  return Response.json({ token });
}
