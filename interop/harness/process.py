"""Processes that this program starts, with their output in files, and ends by their own id."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

POLL_SECONDS = 0.02


class Process:
    """A server in the background. Its output goes to a file, which `text` reads."""

    def __init__(self, name: str, command: list[str], log: Path, env: dict[str, str] | None = None):
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def alive(self) -> bool:
        return self.child.poll() is None

    def wait_for(self, condition, seconds: float = 60.0) -> None:
        """Waits until `condition()`, and fails if the process ends or takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.alive():
                raise RuntimeError(f"{self.name} ended with {self.child.returncode}:\n{self.text()[-2000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} is not ready after {seconds} s:\n{self.text()[-2000:]}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.child.kill()
        self.child.wait()

    def stop(self, seconds: float = 15.0) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if not self.alive():
            return
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def resident_bytes(self) -> int:
        """Memory resident now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0


def run_quietly(command: list[str], cwd: Path | None = None) -> None:
    """Runs a command to its end, and shows its output only if it fails."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout[-4000:]}")


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody uses now; held together, so that no two are the same."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """True if something listens on `port`."""
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        return False
