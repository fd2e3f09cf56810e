"""roomcast from a FastAPI backend, written by `roomcast init --fastapi`. Needs httpx and fastapi.

    from roomcast_backend import publish, router
    app.include_router(router)
"""

import hashlib
import hmac
import json
import os
import re
import time
import uuid

import httpx
from fastapi import APIRouter, HTTPException, Request

URL = os.environ.get("ROOMCAST_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("ROOMCAST_PUBLISH__KEYS", "").split(",")[0]
SECRET = os.environ.get("ROOMCAST_BACKEND__SECRET", "")

router = APIRouter()


async def publish(room, event, data=None, id=None):
    """Sends an event to everybody in a room. A repeat with the same `id` is sent once."""
    body = {"room": room, "event": event, "data": data, "id": id or str(uuid.uuid4())}
    async with httpx.AsyncClient(timeout=5) as client:
        answer = await client.post(f"{URL}/publish", json=body, headers={"authorization": f"Bearer {KEY}"})
    answer.raise_for_status()
    return answer.json()["offset"]


async def may_join(call):
    """Your rule: is this user a member of the chat?"""
    return call["user"] is not None


@router.post("/roomcast")
async def handle(request: Request):
    body = await request.body()
    if not is_signed(request.headers.get("x-roomcast-signature", ""), body):
        raise HTTPException(401)
    call = json.loads(body)
    if call["type"] == "join":
        return {"allow": await may_join(call)}
    return {}


def is_signed(header, body):
    match = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", header)
    if not match or not SECRET or abs(time.time() - int(match[1])) > 300:
        return False
    expected = hmac.new(SECRET.encode(), match[1].encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, match[2])
