// Who is signed in: a name in a signed cookie. Yours is what you have already (Auth.js, Clerk, your own).
import { jwtVerify, SignJWT } from "jose";
import { cookies } from "next/headers";

const COOKIE = "session";
// Another audience than the tokens for roomcast, so that neither passes for the other.
const AUDIENCE = "session";
const key = () => new TextEncoder().encode(process.env.JWT_SECRET);

export async function currentUser(): Promise<{ id: string } | null> {
  const value = (await cookies()).get(COOKIE)?.value;
  if (!value) return null;
  const verified = await jwtVerify(value, key(), { audience: AUDIENCE }).catch(() => null);
  return verified?.payload.sub ? { id: verified.payload.sub } : null;
}

export async function signIn(name: string) {
  const value = await new SignJWT({})
    .setProtectedHeader({ alg: "HS256" })
    .setSubject(name)
    .setAudience(AUDIENCE)
    .setExpirationTime("1d")
    .sign(key());
  (await cookies()).set(COOKIE, value, { httpOnly: true, sameSite: "lax" });
}
