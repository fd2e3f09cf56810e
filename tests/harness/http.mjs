// One HTTP request and its answer.
import http from "node:http";
import https from "node:https";
import { within } from "./deadline.mjs";

/** `http` or `https`, whichever the URL asks for. */
export const moduleFor = (url) => (String(url).startsWith("https:") ? https : http);

const AUTHORITIES = new Map();

/** Requests and clients of this origin trust this certificate. */
export const trust = (url, certificate) => AUTHORITIES.set(new URL(url).host, certificate);
/** The certificate that clients of this URL trust; `undefined`: the usual ones. */
export const authorityOf = (url) => AUTHORITIES.get(new URL(url).host);

/** `{ status, headers, text, json() }` of a request; `body` a string or Buffer. */
export function request(url, { method = "GET", headers = {}, body } = {}) {
  const answered = new Promise((resolve, reject) => {
    const sent = moduleFor(url).request(url, { method, headers, agent: false, ca: authorityOf(url) }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString("utf8");
        resolve({ status: response.statusCode, headers: response.headers, text, json: () => JSON.parse(text) });
      });
    });
    sent.on("error", reject);
    sent.end(body);
  });
  return within(answered, `an answer of ${method} ${url}`);
}

/** A request whose body is JSON, or raw text if a string is given. */
export function post(url, body, headers = {}) {
  const text = typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  return request(url, { method: "POST", body: text, headers: { "content-type": "application/json", ...headers } });
}
