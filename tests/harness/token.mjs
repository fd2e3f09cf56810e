// JSON Web Tokens with node:crypto alone, so that a test can also write invalid ones.
import crypto from "node:crypto";
import { SECRET } from "./config.mjs";

export const base64url = (value) =>
  Buffer.from(typeof value === "string" || Buffer.isBuffer(value) ? value : JSON.stringify(value)).toString("base64url");

const DIGEST = { 256: "sha256", 384: "sha384", 512: "sha512" };

/** The signature of `input` by `alg` (HS*, RS*, ES*, none) and its key. */
export function signature(alg, input, key) {
  if (alg === "none") return "";
  const digest = DIGEST[alg.slice(2)];
  if (alg.startsWith("HS")) return crypto.createHmac(digest, key).update(input).digest("base64url");
  const dsaEncoding = alg.startsWith("ES") ? "ieee-p1363" : undefined;
  return crypto.sign(digest, Buffer.from(input), { key, dsaEncoding }).toString("base64url");
}

/** A token; `payload` may be raw JSON text, for numbers that JavaScript cannot represent. */
export function sign(payload, { alg = "HS256", key = SECRET, header = {} } = {}) {
  const input = `${base64url({ alg, typ: "JWT", ...header })}.${base64url(payload)}`;
  return `${input}.${signature(alg, input, key)}`;
}

export const now = () => Math.floor(Date.now() / 1000);

/** A valid token for a user with more claims; it expires in an hour. */
export function tokenFor(user, claims = {}, options = {}) {
  return sign({ sub: user, exp: now() + 3600, ...claims }, options);
}

/** A key pair: `{ publicKey, privateKey }` as PEM, and `jwk(kid)` of its public half. */
export function keyPair(alg) {
  const pair = alg.startsWith("ES")
    ? crypto.generateKeyPairSync("ec", { namedCurve: "P-256" })
    : crypto.generateKeyPairSync("rsa", { modulusLength: 2048 });
  return {
    publicKey: pair.publicKey.export({ type: "spki", format: "pem" }),
    privateKey: pair.privateKey.export({ type: "pkcs8", format: "pem" }),
    jwk: (kid) => ({ ...pair.publicKey.export({ format: "jwk" }), kid, use: "sig", alg }),
  };
}

/** Tokens that must be refused, by what is wrong with them. */
export function badTokens() {
  const good = { sub: "7", exp: now() + 3600 };
  const [head, body, mac] = sign(good).split(".");
  const huge = "9".repeat(400);
  return {
    "of another secret": sign(good, { key: "another secret of at least thirty-two bytes" }),
    "expired": sign({ ...good, exp: now() - 60 }),
    "without exp": sign({ sub: "7" }),
    "not valid yet": sign({ ...good, nbf: now() + 600 }),
    "alg none": sign(good, { alg: "none" }),
    "alg None with a signature": `${base64url({ alg: "None", typ: "JWT" })}.${body}.${mac}`,
    "alg outside the list": sign(good, { alg: "HS512" }),
    "without alg": (() => {
      const input = `${base64url({ typ: "JWT" })}.${body}`;
      return `${input}.${signature("HS256", input, SECRET)}`;
    })(),
    "signature cut": `${head}.${body}.${mac.slice(0, -4)}`,
    "signature empty": `${head}.${body}.`,
    "payload changed": `${head}.${base64url({ ...good, sub: "8" })}.${mac}`,
    "two parts": `${head}.${body}`,
    "four parts": `${head}.${body}.${mac}.${mac}`,
    "garbage": "not a token",
    "no JSON inside": sign("{"),
    "exp as a string": sign({ ...good, exp: String(good.exp) }),
    "exp negative": sign({ ...good, exp: -1 }),
    "exp beyond numbers": sign(`{"sub":"7","exp":${huge}}`),
    "nbf as a string": sign({ ...good, nbf: "0" }),
    "without a user": sign({ exp: good.exp }),
    "user an object": sign({ ...good, sub: { id: 7 } }),
    "user with a colon": sign({ ...good, sub: "7:admin" }),
    "user with a star": sign({ ...good, sub: "*" }),
    "user with a newline": sign({ ...good, sub: "7\n8" }),
    "kid a path": sign(good, { header: { kid: "../../etc/passwd" }, key: "" }),
    "jku to elsewhere": sign(good, { header: { jku: "http://127.0.0.1:9/jwks.json" }, key: "x" }),
  };
}
