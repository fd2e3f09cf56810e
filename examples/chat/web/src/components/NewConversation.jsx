import { useState } from "react";
import { useStartConversation, useUsers } from "../data/queries.js";

export function NewConversation({ onStarted }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <section className="new">
      <button onClick={() => setOpen(!isOpen)} aria-expanded={isOpen}>
        New conversation
      </button>
      {isOpen && (
        <People
          onStarted={(id) => {
            setOpen(false);
            onStarted(id);
          }}
        />
      )}
    </section>
  );
}

function People({ onStarted }) {
  const { data: users = [] } = useUsers();
  const [chosen, setChosen] = useState([]);
  const start = useStartConversation();
  const toggle = (id) => setChosen(chosen.includes(id) ? chosen.filter((one) => one !== id) : [...chosen, id]);

  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        start.mutate(chosen, { onSuccess: ({ id }) => onStarted(id) });
      }}
    >
      {users.length === 0 && <p>Nobody else yet: sign in as somebody in another tab.</p>}
      <div className="people">
        {users.map(({ id, name }) => (
          <label key={id}>
            <input type="checkbox" checked={chosen.includes(id)} onChange={() => toggle(id)} /> {name}
          </label>
        ))}
      </div>
      <button disabled={chosen.length === 0 || start.isPending}>Start</button>
      {start.error && <p className="error">{start.error.message}</p>}
    </form>
  );
}
