// Makes the secrets that the services share, once.
import { randomBytes } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";

for (const name of ["jwt_secret", "publish_keys", "backend_secret"]) {
  const file = `/secrets/${name}`;
  // roomcast runs as another user than this container, and nothing else has this volume.
  if (!existsSync(file)) writeFileSync(file, randomBytes(36).toString("base64url"), { mode: 0o444 });
}
