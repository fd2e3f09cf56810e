import { useEffect, useRef, useState } from "preact/hooks";
import { signedOutBecause, signIn } from "../api.js";
import { Trouble } from "../ui.jsx";

const ADVICE = {
  unauthorized: { message: "This key is not one of publish.keys. Keys are compared whole: look for a missing character or a space." },
  publishing_disabled: { message: "This node has no key, so nobody can sign in. Set publish.keys in the configuration (ROOMCAST_PUBLISH__KEYS), for example to what `openssl rand -hex 32` prints." },
  too_many_sign_ins: { message: "Too many keys were tried from your address. Wait a minute, then try again." },
};

export function SignIn() {
  const [state, setState] = useState({});
  const input = useRef();
  useEffect(() => {
    document.title = "Sign in · roomcast";
    input.current.focus();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    const key = input.current.value.trim();
    if (!key) return setState({ problem: { message: "Paste one of the keys in publish.keys." } });
    setState({ busy: true });
    try {
      await signIn(key);
    } catch (problem) {
      setState({ problem: ADVICE[problem.code] ? { ...ADVICE[problem.code], code: problem.code } : problem });
      input.current?.select();
    }
  };
  return (
    <main class="sign-in">
      <form class="card" onSubmit={submit}>
        <img src="console/icon.svg" width="44" height="44" alt="" />
        <h1>roomcast console</h1>
        <p class="soft">{signedOutBecause.value || "See into the cluster, and act on it."}</p>
        <input type="text" name="username" value="roomcast" autocomplete="username" hidden readOnly />
        <div class="field">
          <label for="key">Key</label>
          <input id="key" ref={input} type="password" name="key" autocomplete="current-password" aria-describedby="key-hint" aria-invalid={state.problem ? "true" : undefined} spellcheck={false} />
          <small id="key-hint">One of <code>publish.keys</code>. The page does not keep it: the node gives your browser a cookie instead.</small>
        </div>
        <Trouble problem={state.problem} />
        <button class="primary" disabled={state.busy}>{state.busy ? "Signing in…" : "Sign in"}</button>
      </form>
    </main>
  );
}
