"""A function app that shows what the host does; test_host.py runs it as a child process."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
NOTES = Path(os.environ["SAMPLE_NOTES"])


@app.route("echo/{kind:alpha}/{id:guid?}", methods=["GET", "POST"])
async def echo(req: func.HttpRequest) -> func.HttpResponse:
    seen = {
        "method": req.method,
        "url": req.url,
        "route": dict(req.route_params),
        "params": dict(req.params),
        "header": req.headers.get("X-Sample"),
        "body": req.get_body().decode(),
    }
    return func.HttpResponse(json.dumps(seen), mimetype="application/json", status_code=201)


@app.route("rest/{*path}", methods=["GET"], auth_level="ANONYMOUS")
def rest(req: func.HttpRequest) -> str:
    return req.route_params.get("path", "nothing")


@app.route("cookies", auth_level="ANONYMOUS")
def cookies(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    headers = {"Set-Cookie": "a=1; Path=/", "X-Function": context.function_name}
    return func.HttpResponse("crème", headers=headers)


@app.route("nothing", auth_level="ANONYMOUS")
def nothing(req: func.HttpRequest) -> None:
    return None


@app.route("fails")
def fails(req: func.HttpRequest) -> func.HttpResponse:
    raise ValueError("on purpose")


@app.route("slow")
async def slow(req: func.HttpRequest) -> func.HttpResponse:
    await asyncio.sleep(float(req.params["seconds"]))
    return func.HttpResponse("done")


@app.route("admin-only", auth_level="ADMIN")
def admin_only(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("master")


@app.queue_trigger("message", "%SAMPLE_QUEUE%", "AzureWebJobsStorage")
async def work(message: func.QueueMessage) -> None:
    content = message.get_json()
    _note("started", message)
    if content.get("fail"):
        raise RuntimeError("on purpose")
    await asyncio.sleep(content.get("seconds", 0))
    if gate := content.get("gate"):
        # The test, another process, opens the gate by making a file
        while not (NOTES.parent / gate).exists():
            await asyncio.sleep(0.05)
    _note("ended", message)


@app.timer_trigger("timer", "0 0 0 1 1 *", run_on_startup=True)
def yearly(timer: func.TimerRequest) -> None:
    _write({"event": "timer", "past_due": timer.past_due, "next": timer.schedule_status["Next"]})


def _note(event: str, message: func.QueueMessage) -> None:
    _write(
        {
            "event": event,
            "name": message.get_json()["name"],
            "count": message.dequeue_count,
            "inserted": str(message.insertion_time),
            "at": time.time(),
        }
    )


def _write(note: dict[str, object]) -> None:
    with NOTES.open("a") as notes:
        notes.write(json.dumps(note) + "\n")
