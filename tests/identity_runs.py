"""Runs with identities of the task in `linear_task`, and a node on the loopback that can fall silent."""

from __future__ import annotations

import contextlib
import http.server
import json
import pathlib
import threading
from collections.abc import Callable, Iterator

import web3
from eth_utils import is_bytes
from linear_runs import configuration

from fedmrg_core.federation.run import run_federation
from fedmrg_core.identity import embedded
from fedmrg_core.runs.run_configuration import Identities, RunConfiguration


def with_identities(name: str = "plain", rounds: int = 2, **settings: object) -> RunConfiguration:
    return configuration(name, 0, rounds).model_copy(update={"identities": Identities(**settings)})


def run(folder: pathlib.Path, name: str = "plain", rounds: int = 2, settings: dict | None = None, **options) -> None:
    run_federation(folder, with_identities(name, rounds, **(settings or {})), progress=False, **options)


class Node:
    """An EVM node by HTTP. `answers` decides for each request whether it is answered at all, and when."""

    def __init__(self, accounts: list[str]) -> None:
        self.provider = web3.EthereumTesterProvider(embedded._tester(accounts))
        self.client = web3.Web3(self.provider)
        self.answers: Callable[[str], str] = lambda method: "yes"  # or "no", or "lost": done, and the answer is lost
        self.asked: list[str] = []
        self.url = ""

    def request(self, method: str, parameters: list) -> dict:
        """What a node would send back."""
        make = self.provider.request_func(self.client, self.client.middleware_onion)
        try:
            return make(method, parameters)
        except Exception as error:
            return {"error": {"code": -32000, "message": str(error)}}


@contextlib.contextmanager
def serving(accounts: list[str]) -> Iterator[Node]:
    node, one_at_a_time = Node(accounts), threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            node.asked.append(asked["method"])
            answer = node.answers(asked["method"])
            if answer == "no":
                self.connection.close()
                return
            with one_at_a_time:  # the chain in memory knows no threads
                reply = node.request(asked["method"], asked.get("params", []))
                content = json.dumps({"jsonrpc": "2.0", "id": asked["id"], **_plain(reply)}, default=_plain).encode()
            if answer == "lost":
                self.connection.close()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    node.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield node
    finally:
        server.shutdown()
        server.server_close()


def _plain(value: object) -> object:
    """As JSON-RPC writes it."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {key: _plain(item) for key, item in value.items() if key not in ("jsonrpc", "id")}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_bytes(value):
        return web3.Web3.to_hex(value)
    return value
