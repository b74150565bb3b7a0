"""Programs that append without pause, and remember what was acknowledged, where and when."""

import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from harness import remoting

# A load that gets an error goes on after this time.
PAUSE_SECONDS = 0.05
TIMEOUT_SECONDS = 3


@dataclass
class Ack:
    """A record that was acknowledged: its place, its bytes, and when the answer came (monotonic seconds)."""

    place: tuple
    payload: bytes
    at: float


class Load:
    """A thread that appends one record after another while it is not paused. Each record has other bytes."""

    def __init__(self, name: str):
        self.name = name
        self.acks: list[Ack] = []
        self.errors = 0
        self._number = 0
        self._running = threading.Event()
        self._idle = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._work, daemon=True, name=name)

    def start(self) -> None:
        self._thread.start()
        self.resume()

    def resume(self) -> None:
        self._idle.clear()
        self._running.set()

    def pause(self) -> None:
        """Returns once nothing is under way."""
        self._running.clear()
        if not self._idle.wait(60):
            raise RuntimeError(f"load {self.name} does not come to a stop")

    def end(self) -> None:
        self._ended = True
        self.resume()
        self._thread.join(60)

    def payload(self) -> bytes:
        self._number += 1
        return f"{self.name}-{self._number:08d}".encode()

    def _work(self) -> None:
        while not self._ended:
            if not self._running.is_set():
                self.rest()
                self._idle.set()
                self._running.wait()
            payload = self.payload()
            try:
                place = self.append(payload)
            except (OSError, ValueError, KeyError):
                place = None
            if place is None:
                self.errors += 1
                self.rest()
                time.sleep(PAUSE_SECONDS)
            else:
                self.acks.append(Ack(place, payload, time.monotonic()))

    def append(self, payload: bytes) -> tuple | None:
        """Where the record was stored, or None if it was not acknowledged."""
        raise NotImplementedError

    def rest(self) -> None:
        """Ends connections; the next append makes new ones."""


class Native(Load):
    """Appends to a log by `quorumlog append`, one at a time."""

    def __init__(self, name: str, binary: Path, nodes: list[str], log: str, log_file: Path, sync: bool):
        super().__init__(name)
        self.log = log
        self.output = log_file
        self.command = [str(binary), "append", log, "-", "--print-index", "--inflight", "1", "--timeout", "3s"]
        self.command += ["--flush", "sync"] if sync else []
        for node in nodes:
            self.command += ["--node", node]
        self.child: subprocess.Popen | None = None

    def append(self, payload: bytes) -> tuple | None:
        if self.child is None:
            with self.output.open("ab") as errors:
                self.child = subprocess.Popen(
                    self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
                )
        self.child.stdin.write(payload + b"\n")
        line = self.child.stdout.readline()
        return (self.log, int(line)) if line.strip() else None

    def rest(self) -> None:
        if self.child is not None:
            self.child.stdin.close()
            self.child.stdout.close()
            self.child.wait()
            self.child = None


class RocketMq(Load):
    """Sends to one queue of one broker, one message at a time. Only SEND_OK counts."""

    def __init__(self, name: str, name_servers: list[int], topic: str, broker: str, queue: int):
        super().__init__(name)
        self.name_servers = name_servers
        self.topic = topic
        self.broker = broker
        self.queue = queue
        self.connection: remoting.Connection | None = None

    def append(self, payload: bytes) -> tuple | None:
        if self.connection is None:
            self.connection = remoting.connect(self.name_servers, self.topic, self.broker, TIMEOUT_SECONDS)
        offset = self.connection.send(self.topic, self.queue, payload)
        return None if offset is None else (self.topic, self.broker, self.queue, offset)

    def rest(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
