// How people and times are put into words.

export const othersIn = (conversation, user) => conversation.participants.filter(({ id }) => id !== user.id);

export const titleOf = (conversation, user) =>
  othersIn(conversation, user)
    .map(({ name }) => name)
    .join(", ");

export const isOnline = (conversation, user, presence) =>
  othersIn(conversation, user).some(({ id }) => presence[id]?.online ?? false);

/** "online", "last seen today at 12:30", or nothing where it is not known. */
export function presenceOf(conversation, user, presence) {
  const others = othersIn(conversation, user);
  const online = others.filter(({ id }) => presence[id]?.online);
  if (others.length > 1) return `${online.length} of ${others.length} online`;
  if (online.length > 0) return "online";
  const lastSeen = presence[others[0].id]?.lastSeen;
  return lastSeen ? `last seen ${dayAndTime(new Date(lastSeen))}` : "";
}

export const timeOf = (message) => new Date(message.createdAt).toLocaleTimeString([], { timeStyle: "short" });

function dayAndTime(date) {
  const isToday = date.toDateString() === new Date().toDateString();
  const day = isToday ? "today" : date.toLocaleDateString([], { dateStyle: "medium" });
  return `${day} at ${date.toLocaleTimeString([], { timeStyle: "short" })}`;
}

/** "Ann is typing…" */
export function typingText(names) {
  if (names.length === 0) return "";
  return `${names.join(" and ")} ${names.length === 1 ? "is" : "are"} typing…`;
}
