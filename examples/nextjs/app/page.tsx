import { revalidatePath } from "next/cache";
import { db } from "../db";
import { currentUser, signIn } from "../session";
import { Chat } from "./Chat";

const CHAT = "42";

export default async function Page() {
  const user = await currentUser();
  if (user) return <Chat id={CHAT} user={user.id} url={process.env.ROOMCAST_PUBLIC_URL!} messages={await db.messages(CHAT)} />;

  async function enter(form: FormData) {
    "use server";
    const name = String(form.get("name") ?? "").trim().slice(0, 40);
    if (name) await signIn(name);
    revalidatePath("/");
  }
  return (
    <form action={enter}>
      <input name="name" placeholder="Your name" aria-label="Your name" required maxLength={40} />
      <button>Enter</button>
    </form>
  );
}
