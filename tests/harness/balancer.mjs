// Where a proxy leads: `backends()` answers the choices for a new connection, the first choice first.
import { request } from "./http.mjs";

const CHECK_EVERY_MS = 100;

/** Always the same backend. */
export const only = (backend) => ({ backends: () => [backend], close() {} });

/** Each new connection goes to the next backend. */
export class RoundRobin {
  #turn = 0;

  constructor(all) {
    this.all = all;
  }

  backends() {
    return [this.all[this.#turn++ % this.all.length]];
  }

  close() {}
}

/** Round robin over the backends whose /health is 200, as load balancers do; the others come last. */
export class HealthChecked {
  #turn = 0;

  constructor(all) {
    this.all = all;
    this.healthy = new Set(all);
    this.timer = setInterval(() => this.#check(), CHECK_EVERY_MS);
  }

  async #check() {
    for (const backend of this.all) {
      const answer = await request(`${backend.url}/health`).catch(() => undefined);
      if (answer?.status === 200) this.healthy.add(backend);
      else this.healthy.delete(backend);
    }
  }

  backends() {
    const turn = (this.#turn += 1);
    const rotated = this.all.map((_, index) => this.all[(index + turn) % this.all.length]);
    return [...rotated.filter((one) => this.healthy.has(one)), ...rotated.filter((one) => !this.healthy.has(one))];
  }

  /** `fresh` takes the place of `old`, which may be `undefined`. */
  replace(old, fresh) {
    this.all = [...this.all.filter((one) => one !== old), fresh];
    this.healthy.delete(old);
  }

  close() {
    clearInterval(this.timer);
  }
}
