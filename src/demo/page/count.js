// Publishes numbered events as a backend would, and counts what each pane receives of them.

const EVENTS = 50;
const EVERY_MS = 100;
const AGAIN_AFTER_MS = 200;

/** Lets the button in `root` start a count. */
export function countEvents(root, demo, panes) {
  const button = root.querySelector(".start");
  const result = root.querySelector(".result");
  let run = null;
  const show = () => {
    if (run) result.textContent = summary(run, panes);
  };
  panes.forEach((pane, index) => {
    pane.socket.on("count", ({ run: of, number }) => {
      if (of !== run?.id) return;
      const times = run.received[index];
      times.set(number, (times.get(number) ?? 0) + 1);
      show();
    });
  });
  button.addEventListener("click", async () => {
    button.disabled = true;
    run = { id: Math.random().toString(36).slice(2, 10), sent: 0, received: panes.map(() => new Map()) };
    for (let number = 1; number <= EVENTS; number++) {
      const next = pause(EVERY_MS);
      await publish(demo, run.id, number);
      run.sent = number;
      show();
      await next;
    }
    button.disabled = false;
  });
}

/** As a backend does: until the log has it, under the same id, so that a repeat is not sent again. */
async function publish(demo, run, number) {
  const event = { room: demo.fullRoom, event: "count", data: { run, number, at: Date.now() }, id: `${run}-${number}` };
  for (;;) {
    const answer = await fetch("/publish", {
      method: "POST",
      headers: { authorization: `Bearer ${demo.key}`, "content-type": "application/json" },
      body: JSON.stringify(event),
    }).catch(() => null);
    if (answer?.ok) return;
    await pause(AGAIN_AFTER_MS);
  }
}

/** What each pane received; missing events are lost only for a pane that is connected. */
function summary({ sent, received }, panes) {
  return panes.map(({ name, socket }, index) => {
    const times = [...received[index].values()];
    const missing = Math.max(0, sent - times.length);
    const twice = times.filter((count) => count > 1).length;
    const gone = socket.connected ? `${missing} lost` : `${missing} waiting`;
    return `${name}: ${sent} sent, ${times.length} received, ${gone}, ${twice} twice`;
  }).join("\n");
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
