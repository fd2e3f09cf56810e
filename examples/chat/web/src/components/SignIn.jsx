import { useState } from "react";
import { useSignIn } from "../data/queries.js";

export function SignIn() {
  const [name, setName] = useState("");
  const signIn = useSignIn();
  const submit = (event) => {
    event.preventDefault();
    signIn.mutate(name);
  };

  return (
    <form className="sign-in" onSubmit={submit}>
      <h1>Chat on roomcast</h1>
      <p>Pick a name. Open a second tab for somebody to talk to: each tab is its own user.</p>
      <input name="name" value={name} onChange={(event) => setName(event.target.value)} placeholder="Your name" maxLength={40} autoFocus />
      <button disabled={name.trim() === "" || signIn.isPending}>Come in</button>
      {signIn.error && <p className="error">{signIn.error.message}</p>}
    </form>
  );
}
