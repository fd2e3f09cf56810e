"""A chat in FastAPI. It saves and publishes; roomcast has the sockets."""

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import jwt
from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

import roomcast_backend
import store

SECRET = os.environ["JWT_SECRET"]
PAGE = Path(__file__).with_name("page.html").read_text()
RETRY_SECONDS = 1
wake = asyncio.Event()


async def publish_outbox():
    """Publishes what was saved, in order. While roomcast is away nothing is lost: it is sent when it is back."""
    while True:
        wake.clear()
        while entry := store.oldest_event():
            try:
                # The same id at each attempt: an event whose answer was lost is not sent to clients twice.
                await roomcast_backend.publish(entry["room"], entry["event"], json.loads(entry["data"]), id=entry["id"])
            except httpx.HTTPError as error:
                if not refused_for_good(error):
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                print(f"roomcast refused event {entry['id']}: {error.response.text}", flush=True)
            store.published(entry["position"])
        await wake.wait()


def refused_for_good(error):
    """Whether the event itself is wrong. A wrong key is not: it is tried again until it is right."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (400, 413)


@asynccontextmanager
async def lifespan(_):
    publisher = asyncio.create_task(publish_outbox())
    yield
    publisher.cancel()


async def may_join(call):
    """roomcast asks. Yours is the place to look the membership up."""
    return isinstance(call["user"], str) and call["room"].startswith("chat:")


roomcast_backend.may_join = may_join
app = FastAPI(lifespan=lifespan)
app.include_router(roomcast_backend.router)


class SignIn(BaseModel):
    name: str = Field(min_length=1, max_length=40)


class NewMessage(BaseModel):
    text: str = Field(min_length=1, max_length=2000)


@app.get("/", response_class=HTMLResponse)
def page():
    return PAGE.replace("{{roomcast}}", os.environ["ROOMCAST_PUBLIC_URL"])


@app.post("/session")
def sign_in(who: SignIn):
    """One token for this API and for roomcast."""
    claims = {"sub": who.name, "iat": int(time.time()), "exp": int(time.time()) + 3600}
    return {"token": jwt.encode(claims, SECRET, algorithm="HS256")}


def user_of(authorization):
    try:
        return jwt.decode((authorization or "").removeprefix("Bearer "), SECRET, algorithms=["HS256"])["sub"]
    except jwt.PyJWTError as error:
        raise HTTPException(401, "sign in first") from error


@app.get("/chats/{chat}/messages")
def messages(chat: str, authorization: str | None = Header(None)):
    user_of(authorization)
    return store.messages(chat)


@app.post("/chats/{chat}/messages", status_code=201)
async def send(chat: str, message: NewMessage, authorization: str | None = Header(None)):
    author = user_of(authorization)
    with store.transaction() as tx:
        saved = store.save_message(tx, chat, author, message.text)
        store.announce(tx, f"chat:{chat}", "new_message", saved)
    wake.set()
    return saved
