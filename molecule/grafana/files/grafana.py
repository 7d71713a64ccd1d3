#!/usr/bin/python3
"""Stands in for Grafana where its vendor's package can't be had: the parts of its settings, files and API that the
role uses, and nothing else. Like the real one it takes the password from its settings only when it makes its database.
"""

import base64
import json
import os
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import yaml

DATABASE = Path("/var/lib/grafana/grafana.json")
SETTINGS = {name: value for name, value in os.environ.items() if name.startswith("GF_")}


def provisioned(kind):
    folder = Path(SETTINGS["GF_PATHS_PROVISIONING"]) / kind
    return [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yml"))]


class Api(BaseHTTPRequestHandler):
    def answer(self, code, body):
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        prefix = urlsplit(SETTINGS["GF_SERVER_ROOT_URL"]).path.rstrip("/")
        path = urlsplit(self.path).path
        if SETTINGS["GF_SERVER_SERVE_FROM_SUB_PATH"] != "true" or not path.startswith(prefix + "/"):
            return self.answer(404, {})
        path = path.removeprefix(prefix)
        if path == "/api/health":
            return self.answer(200, {"database": "ok", "version": os.environ["FAKE_VERSION"]})
        password = json.loads(DATABASE.read_text())["password"]
        wanted = "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            return self.answer(401, {"message": "Unauthorized"})
        if path == "/api/user":
            return self.answer(200, {"login": "admin"})
        if path == "/api/settings":
            return self.answer(200, {name: value for name, value in SETTINGS.items() if "PASSWORD" not in name})
        if path == "/api/search":
            folders = [one["options"]["path"] for file in provisioned("dashboards") for one in file["providers"]]
            found = [json.loads(file.read_text()) for folder in folders for file in sorted(Path(folder).glob("*.json"))]
            return self.answer(200, [{"uid": one["uid"], "title": one["title"]} for one in found])
        for file in provisioned("datasources"):
            for one in file["datasources"]:
                if path == f"/api/datasources/uid/{one['uid']}/health":
                    with urllib.request.urlopen(f"{one['url']}/api/v1/query?query=1") as reply:
                        return self.answer(200, {"status": "OK" if json.load(reply)["status"] == "success" else "no"})
        return self.answer(404, {})


def main():
    if "reset-admin-password" in sys.argv:
        assert sys.argv[-1] == "--password-from-stdin"
        DATABASE.write_text(json.dumps({"password": sys.stdin.read().strip()}))
        return
    if not DATABASE.exists():
        DATABASE.write_text(json.dumps({"password": SETTINGS["GF_SECURITY_ADMIN_PASSWORD"]}))
    address = (SETTINGS["GF_SERVER_HTTP_ADDR"], int(SETTINGS["GF_SERVER_HTTP_PORT"]))
    ThreadingHTTPServer(address, Api).serve_forever()


main()
