"""Our broker: three nodes in one process, or three processes of which one can be killed."""

import json
import os
import socket
import subprocess
import tomllib
import urllib.request
from collections import Counter
from pathlib import Path

from harness.process import Process, free_ports

ROOT = Path(__file__).resolve().parents[2]
NODES = 3
LOGS = 3
SYSTEM_LOG = "_system"
# A node's brokers listen at consecutive ports, and so do the name servers with `--dev`.
STRIDE = 30


def build() -> Path:
    """The release binary."""
    package = tomllib.loads((ROOT / "cli" / "Cargo.toml").read_text())
    subprocess.run(["cargo", "build", "--release", "-p", package["package"]["name"]], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / package["bin"][0]["name"]


def free_stride(count: int) -> int:
    """The first of `count` consecutive ports that nobody uses now."""
    for _ in range(100):
        (first,) = free_ports(1)
        if first + count < 65_536 and all(_is_free(first + at) for at in range(count)):
            return first
    raise RuntimeError(f"there are no {count} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


class Dev:
    """`quorumlog broker --dev`."""

    def __init__(self, binary: Path, directory: Path):
        self.name_port = free_stride(NODES)
        command = [
            str(binary), "broker", "--dev", "--free-ports", "--data", str(directory / "data"), "--logs", str(LOGS),
            "--name-server", f"127.0.0.1:{self.name_port}", "--broker", f"127.0.0.1:{free_stride(NODES * STRIDE) + 2}",
        ]
        self.process = Process("quorumlog", command, directory / "quorumlog.log")
        self.process.wait_for(lambda: "Ctrl-C" in self.process.text())

    @property
    def address(self) -> str:
        return ";".join(f"127.0.0.1:{self.name_port + node}" for node in range(NODES))

    def processes(self) -> list[Process]:
        return [self.process]

    def stop(self) -> None:
        self.process.stop()


class Cluster:
    """Three processes, each a node with its name server and its brokers. Node `n` stores in `data[n]`."""

    def __init__(self, binary: Path, directory: Path, settings: tuple[str, ...] = (), data: list[Path] | None = None):
        self.binary = binary
        self.directory = directory
        self.settings = settings
        self.data = data or [directory / f"node{node + 1}" for node in range(NODES)]
        ports = free_ports(NODES * 4)
        self.peer, self.client, self.http, self.name = (ports[at * NODES : (at + 1) * NODES] for at in range(4))
        self.broker = free_stride(NODES * STRIDE) + 2
        self.nodes = [self._start(node) for node in range(NODES)]
        for process in self.nodes:
            process.wait_for(self._is_spread)

    @property
    def address(self) -> str:
        return ";".join(f"127.0.0.1:{port}" for port in self.name)

    def _start(self, node: int) -> Process:
        at = f"127.0.0.1:{{}}".format
        command = [
            str(self.binary), "broker", "--node-id", str(node + 1), "--data-dir", str(self.data[node]),
            "--listen", at(self.peer[node]), "--client-listen", at(self.client[node]), "--http-listen", at(self.http[node]),
            "--name-server", at(self.name[node]), "--broker", at(self.broker + STRIDE * node), "--logs", str(LOGS),
            *self.settings,
        ]
        if node == 0:
            command += ["--bootstrap"]
            for peer in range(NODES):
                command += ["--peer", f"{peer + 1}={at(self.peer[peer])},{at(self.client[peer])}"]
        return Process(f"node {node + 1}", command, self.directory / f"node{node + 1}.log")

    def leaders(self) -> dict[str, int] | None:
        """Which node leads each log; None until every log has a leader."""
        found: dict[str, int] = {}
        logs: set[str] = set()
        for node in range(NODES):
            for log in self.status(node):
                logs.add(log["log"])
                if log["role"] == "leader":
                    found[log["log"]] = node
        return found if logs and set(found) == logs else None

    def _is_spread(self) -> bool:
        """Each node leads a log: a client that asks for routes then meets more than one node."""
        leaders = self.leaders() or {}
        return len({node for log, node in leaders.items() if log != SYSTEM_LOG}) == min(NODES, LOGS)

    def leader(self) -> int:
        """The node that leads most of the logs for messages."""
        leads = Counter(node for log, node in (self.leaders() or {}).items() if log != SYSTEM_LOG)
        return max(range(NODES), key=lambda node: leads[node])

    def status(self, node: int) -> list[dict]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http[node]}/v1/status", timeout=2) as answer:
                return json.load(answer)["logs"]
        except OSError:
            return []

    def kill(self, node: int) -> None:
        self.nodes[node].kill()

    def restart(self, node: int) -> None:
        self.nodes[node] = self._start(node)

    def processes(self) -> list[Process]:
        return self.nodes

    def stop(self) -> None:
        for process in self.nodes:
            process.stop()
