import { useState } from "preact/hooks";
import { call } from "../api.js";
import { to } from "../router.js";
import { Card, Field, Trouble } from "../ui.jsx";

/** What is wrong with the JSON, before the node says so. */
function parsed(text) {
  if (!text.trim()) return {};
  try {
    JSON.parse(text);
    // The text itself is sent, so that numbers keep their digits.
    return { text: `,"data":${text}` };
  } catch (error) {
    return { problem: { message: `The data is not JSON: ${error.message}. A text needs quotes: "hello".` } };
  }
}

export function Publish({ query: { room = "", namespace = "" } }) {
  const [values, setValues] = useState({ room, namespace, event: "test", data: '{ "hello": "from the console" }', volatile: false });
  const [state, setState] = useState({});
  const set = (name) => (event) => setValues({ ...values, [name]: event.currentTarget.value });
  const submit = async (event) => {
    event.preventDefault();
    const data = parsed(values.data);
    if (data.problem) return setState({ problem: data.problem });
    setState({ busy: true });
    const head = JSON.stringify({ room: values.room, event: values.event, namespace: values.namespace, volatile: values.volatile });
    try {
      const answer = await call("publish", { method: "POST", body: `${head.slice(0, -1)}${data.text ?? ""}}` });
      setState({ answer, sent: values });
    } catch (problem) {
      setState({ problem });
    }
  };
  return (
    <>
      <h1 tabIndex={-1}>Publish a test event</h1>
      <p class="lead">It is a real event: every client in the room gets it.</p>
      <Card>
        <form class="form" onSubmit={submit}>
          <Field label="Room" required value={values.room} onInput={set("room")} placeholder="chat:42" hint="A session's id is a room with that one member: a test for one client." />
          <Field label="Event" required value={values.event} onInput={set("event")} />
          <Field label="Namespace" value={values.namespace} onInput={set("namespace")} placeholder="/" />
          <Field label="Data" wide hint="JSON, the event's argument. Empty: none.">
            {(id) => <textarea id={id} rows={6} spellcheck={false} value={values.data} onInput={set("data")} />}
          </Field>
          <label class="check wide">
            <input type="checkbox" checked={values.volatile} onChange={(event) => setValues({ ...values, volatile: event.currentTarget.checked })} />
            <span>Volatile: not stored, and not replayed to clients that resume</span>
          </label>
          <div class="wide"><Trouble problem={state.problem} /></div>
          <div class="actions wide"><button class="primary" disabled={state.busy}>{state.busy ? "Publishing…" : "Publish"}</button></div>
        </form>
      </Card>
      <div role="status">
        {state.answer && (
          <Card title="Accepted">
            <p>
              {state.answer.offset ? <>The log has it at offset <code>{state.answer.offset}</code>. </> : "It was handed to whoever is there. "}
              That says nothing of who is in the room.
            </p>
            <div class="actions">
              <a class="button" href={to(["room", state.sent.room], { namespace: state.sent.namespace })}>Who is in the room</a>
              {state.answer.offset && <a class="button" href={to("explain", { room: state.sent.room, event: state.answer.offset })}>Explain it for a user</a>}
            </div>
          </Card>
        )}
      </div>
    </>
  );
}
Publish.title = "Publish";
