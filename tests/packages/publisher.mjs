// A backend that saves numbered messages and announces each; it is killed and started again by outbox.test.mjs.
// Arguments: URL, key, journal. It ends when `JOURNAL.enough` is there and all is published.
import fs from "node:fs";
import { Outbox, Roomcast } from "../../packages/server/src/index.js";
import { Journal } from "./journal.mjs";

const [url, key, file] = process.argv.slice(2);
const EVERY_MS = 2;
/** Saving pauses here, so that a slow machine does not save everything during one outage. */
const MAX_WAITING = 150;

const journal = new Journal(file);
const outbox = new Outbox(new Roomcast({ url, key, timeout: 1000 }), journal, { batch: 7, maxPause: 50 }).start();

function saveNext() {
  if (fs.existsSync(`${file}.enough`)) {
    clearInterval(saving);
    return end();
  }
  if (journal.entries.length >= MAX_WAITING) return;
  const number = journal.messages.length;
  journal.transaction((transaction) => {
    transaction.message = number;
    outbox.add(transaction, { room: "room:a", event: "n", data: number });
  });
  outbox.wake();
}

async function end() {
  while (journal.entries.length > 0) await outbox.drain().catch(() => new Promise((resolve) => setTimeout(resolve, EVERY_MS)));
  await outbox.close();
  console.log("done");
}

const saving = setInterval(saveNext, EVERY_MS);
