import { useEffect, useRef } from "preact/hooks";
import { findSession, signedIn, signOut } from "./api.js";
import { cluster, clusterProblem, watchCluster } from "./cluster.js";
import { plural } from "./format.js";
import { route, to } from "./router.js";
import { Icon, Loading, Notes, Question } from "./ui.jsx";
import { Explain } from "./views/explain.jsx";
import { Overview } from "./views/overview.jsx";
import { Publish } from "./views/publish.jsx";
import { Room, Rooms } from "./views/rooms.jsx";
import { Session, Sessions } from "./views/sessions.jsx";
import { SignIn } from "./views/sign_in.jsx";
import { Trace } from "./views/trace.jsx";

const VIEWS = { overview: Overview, rooms: Rooms, room: Room, sessions: Sessions, session: Session, explain: Explain, trace: Trace, publish: Publish };
const TABS = [["overview", "Overview"], ["rooms", "Rooms"], ["sessions", "Sessions"], ["explain", "Explain"], ["trace", "Trace"], ["publish", "Publish"]];
const OF = { room: "rooms", session: "sessions" };

/** In one word how the cluster is, and what it is made of. */
function state() {
  if (clusterProblem.value) return ["bad", "No answer", clusterProblem.value.message];
  const nodes = cluster.value?.nodes;
  if (!nodes) return ["plain", "…", "Connecting"];
  const bad = nodes.filter((node) => node.status === "degraded" || node.status === "unreachable").length;
  const leaving = nodes.filter((node) => node.status === "draining").length;
  if (bad) return ["bad", `${bad} of ${plural(nodes.length, "node")} failing`, "See the overview"];
  if (leaving) return ["warn", `${leaving} of ${plural(nodes.length, "node")} draining`, "See the overview"];
  return ["good", `${plural(nodes.length, "node")} ok`, "Every node answers and is ready"];
}

function Header({ view }) {
  const [kind, text, title] = state();
  return (
    <header class="top">
      <a class="brand" href={to([])}>
        <img src="console/icon.svg" width="28" height="28" alt="" />
        <span>roomcast</span>
      </a>
      <nav aria-label="Console">
        {TABS.map(([name, label]) => (
          <a key={name} href={to(name === "overview" ? [] : name)} aria-current={(OF[view] ?? view) === name ? "page" : undefined}>
            <Icon name={name} />
            <span>{label}</span>
          </a>
        ))}
      </nav>
      <a class={`pill ${kind}`} href={to([])} title={title}>{text}</a>
      <button class="quiet sign-out" onClick={signOut} title="Sign out, on every node"><Icon name="out" /><span>Sign out</span></button>
    </header>
  );
}

function Console() {
  useEffect(watchCluster, []);
  const { view, rest, query } = route.value;
  const View = VIEWS[view] ?? Overview;
  const main = useRef();
  const first = useRef(true);
  const place = [view, ...rest].join("/");
  useEffect(() => {
    document.title = `${View.title ?? "Console"} · roomcast`;
    // Whoever uses a screen reader hears where they are; at the start that is the page itself.
    if (!first.current) main.current.querySelector("h1")?.focus();
    first.current = false;
    scrollTo(0, 0);
  }, [place]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current.querySelector("h1")?.focus())}>Skip to the content</a>
      <Header view={view} />
      <main id="main" ref={main}><View key={place} rest={rest} query={query} /></main>
      <Question />
    </>
  );
}

export function App() {
  useEffect(() => void findSession(), []);
  return (
    <>
      {signedIn.value === null ? <Loading /> : signedIn.value ? <Console /> : <SignIn />}
      <Notes />
    </>
  );
}
