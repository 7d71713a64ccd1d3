"""Stands where n8n and the model do. Everything that it says is labelled: title and summary begin with "Stand-in".

It does what the workflow does: passes an event on as it came, answers the sender, asks the model for what there is to
do. The real workflow runs in the real n8n in the lab. Folders switch it: ``n8n-away``, ``model-away``, ``model-slow``
(what speaks of something hard is not answered in time).
"""

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SWITCHES = Path("/var/tmp/stand-in")
SERVICE = "http://127.0.0.1:5690"
TOKEN = "not-a-secret-of-the-role-test-token"
MODEL_TIMEOUT_SECONDS = 5


def post(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict]:
    headers = {**headers, "Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(SERVICE + path, body, headers), timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def model(request: dict) -> dict:
    properties = request["response_format"]["json_schema"]["schema"]["properties"]
    answer = {"summary": "Stand-in summary."}
    if "tags" in properties:
        answer.update(title="Stand-in title", tags=properties["tags"]["items"]["enum"][:2])
    return {"choices": [{"message": {"content": json.dumps(answer)}}]}


def work_off(work: dict | None) -> None:
    while work:
        away = (SWITCHES / "model-away").exists()
        if (SWITCHES / "model-slow").exists() and "Something hard" in work["request"]["messages"][1]["content"]:
            time.sleep(MODEL_TIMEOUT_SECONDS + 0.2)
            away = True
        told = {"lease": work["lease"], "status": None if away else 200, "problem": "refused" if away else ""}
        if not away:
            told["answer"] = model(work["request"])
        work = post("/answers", json.dumps(told).encode(), {})[1].get("work")


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if (SWITCHES / "n8n-away").exists():
            self.send_error(404, "The requested webhook is not registered.")
            return
        passed = {name: self.headers[name] for name in ("X-AI-IDP-Timestamp", "X-AI-IDP-Signature")}
        status, answer = post("/events", body, passed)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps({"status": answer.get("status")}).encode())
        self.wfile.flush()
        work_off(answer.get("work"))


def every_few_seconds() -> None:
    while True:
        time.sleep(3)
        with contextlib.suppress(OSError):
            work_off(post("/work", b"{}", {})[1].get("work"))


if __name__ == "__main__":
    threading.Thread(target=every_few_seconds, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", 5678), Webhook).serve_forever()
