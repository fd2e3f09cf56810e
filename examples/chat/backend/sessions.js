// Who is who: the backend signs a JWT, and roomcast checks it with the same secret.
import { SignJWT, jwtVerify } from "jose";

export class Sessions {
  #key;
  #seconds;

  constructor(secret, seconds) {
    this.#key = new TextEncoder().encode(secret);
    this.#seconds = seconds;
  }

  /** `{ token, expiresIn }` (seconds). */
  async issue(user) {
    const token = await new SignJWT({ name: user.name })
      .setProtectedHeader({ alg: "HS256" })
      .setSubject(user.id)
      .setExpirationTime(`${this.#seconds}s`)
      .sign(this.#key);
    return { token, expiresIn: this.#seconds };
  }

  /** Express middleware: `request.userId`, or 401. */
  required = async (request, response, next) => {
    const [, token] = /^Bearer (.+)$/.exec(request.get("authorization") ?? "") ?? [];
    try {
      const { payload } = await jwtVerify(token ?? "", this.#key, { algorithms: ["HS256"] });
      request.userId = payload.sub;
    } catch {
      return response.status(401).json({ error: "sign in first" });
    }
    next();
  };
}
