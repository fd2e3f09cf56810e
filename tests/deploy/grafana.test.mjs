// deploy/grafana: the dashboard fits Grafana's own types, and a person can read it.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { ROOT, read, run, withDirectory } from "./tools.mjs";

const dashboard = JSON.parse(read("deploy/grafana/dashboard.json"));
const TSC = path.join(ROOT, "tests/node_modules/.bin/tsc");
const COMPOSABLE = "@grafana/schema/dist/esm/raw/composable";
const WIDTH = 24;

/** The dashboard as TypeScript with the types of Grafana's schema, the options of each kind of panel included. */
const typed = (json) => {
  const kinds = { timeseries: "TimeSeries", stat: "Stat" };
  const imports = Object.entries(kinds).map(([kind, name]) => `import type * as ${kind} from "${COMPOSABLE}/${kind}/panelcfg/x/${name}PanelCfg_types.gen";`);
  const options = json.panels.filter(({ type }) => kinds[type]).map(({ type, options }, n) => `export const options${n}: Partial<Loose<${type}.Options>> = ${JSON.stringify(options)};`);
  return `import type { Dashboard } from "${COMPOSABLE.replace("raw/composable", "raw/dashboard")}/x/Dashboard_types.gen";
${imports.join("\n")}
// Enums are compared with their values.
type Loose<T> = T extends string ? \`\${T}\` : T extends (infer I)[] ? Loose<I>[] : T extends object ? { [K in keyof T]: Loose<T[K]> } : T;
export const dashboard: Loose<Omit<Dashboard, "panels">> & { panels: Loose<NonNullable<Dashboard["panels"]>> } = ${JSON.stringify(json)};
${options.join("\n")}
`;
};

/** What the compiler says to this dashboard. */
const compiled = (json) =>
  withDirectory((directory) => {
    fs.writeFileSync(path.join(directory, "dashboard.ts"), typed(json));
    return run(TSC, ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", path.join(directory, "dashboard.ts")]);
  }, import.meta.dirname);

test("Grafana's types accept the dashboard", async () => {
  const { code, output } = await compiled(dashboard);
  assert.equal(code, 0, output);
});

test("Grafana's types refuse a mistake, so their silence means something", async () => {
  const wrong = structuredClone(dashboard);
  wrong.panels.find(({ type }) => type === "timeseries").options.legend.placement = "above";
  const { code, output } = await compiled(wrong);
  assert.notEqual(code, 0);
  assert.match(output, /above/);
});

test("panels have titles, units and places that do not overlap", () => {
  const taken = new Set();
  const ids = new Set(dashboard.panels.map(({ id }) => id));
  assert.equal(ids.size, dashboard.panels.length, "ids are unique");
  for (const { title, type, gridPos: { x, y, w, h }, fieldConfig, datasource } of dashboard.panels) {
    assert.ok(title);
    assert.ok(x + w <= WIDTH, title);
    for (let cell = 0; cell < w * h; cell += 1) {
      const place = `${x + (cell % w)},${y + Math.floor(cell / w)}`;
      assert.ok(!taken.has(place), `${title} overlaps another panel at ${place}`);
      taken.add(place);
    }
    if (type === "row") continue;
    assert.ok(fieldConfig.defaults.unit, title);
    assert.equal(datasource.uid, "${datasource}", "the reader chooses the data source");
  }
});
