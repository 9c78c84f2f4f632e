"""A client of the yaml-language-server, as an editor is one: JSON-RPC over its standard streams."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

CLIENT = {
    "textDocument": {
        "completion": {"completionItem": {"documentationFormat": ["markdown"]}},
        "hover": {"contentFormat": ["markdown"]},
    }
}


class LanguageServer:
    """One server; ``place`` is a line and a column, from 0."""

    def __init__(self, script: Path, folder: Path) -> None:
        self.process = subprocess.Popen(
            ["node", str(script), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.number = self.version = 0
        root = {"rootUri": folder.as_uri(), "capabilities": CLIENT, "processId": None}
        self.ask("initialize", root)
        self.tell("initialized", {})

    def __enter__(self) -> LanguageServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def open(self, page: Path) -> list[str]:
        """Open a page, and give what the server marks in it: ``line:column: message``."""
        self.page = page
        self.version += 1  # the server remembers what it has read by it
        document = {"uri": page.as_uri(), "languageId": "yaml", "version": self.version}
        self.tell("textDocument/didOpen", {"textDocument": document | {"text": page.read_text()}})
        while True:
            told = self.read()
            if told.get("method") == "textDocument/publishDiagnostics":
                return [_marked(found) for found in told["params"]["diagnostics"]]

    def completions(self, line: int, column: int) -> dict[str, dict[str, Any]]:
        """What is offered at a place, by its label."""
        return {item["label"]: item for item in self.at("completion", line, column)["items"]}

    def hover(self, line: int, column: int) -> str:
        return str(self.at("hover", line, column)["contents"]["value"])

    def at(self, what: str, line: int, column: int) -> Any:
        place = {"line": line, "character": column}
        page = {"uri": self.page.as_uri()}
        return self.ask(f"textDocument/{what}", {"textDocument": page, "position": place})

    def ask(self, method: str, params: Any) -> Any:
        self.number += 1
        self.send({"id": self.number, "method": method, "params": params})
        while True:
            told = self.read()
            if told.get("id") == self.number and "method" not in told:
                return told["result"]

    def tell(self, method: str, params: Any) -> None:
        self.send({"method": method, "params": params})

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """The next message; what the server itself asks is answered with nothing."""
        length = 0
        while line := self.process.stdout.readline().strip():
            name, _, value = line.partition(b": ")
            length = int(value) if name == b"Content-Length" else length
        assert length, "the server has ended"
        message: dict[str, Any] = json.loads(self.process.stdout.read(length))
        if "id" in message and "method" in message:
            asked = message["params"].get("items", []) if message.get("params") else []
            self.send({"id": message["id"], "result": [{} for _ in asked]})
        return message


def _marked(found: dict[str, Any]) -> str:
    start = found["range"]["start"]
    return f"{start['line']}:{start['character']}: {found['message']}"
