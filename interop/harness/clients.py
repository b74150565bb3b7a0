"""The clients of all languages: how each is made ready, and what it says when it plays."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import java
from harness.process import run_quietly

INTEROP = Path(__file__).resolve().parents[1]
VENV = INTEROP.parent / "target" / "interop" / "python"
VERDICT = re.compile(r"^(PASS|FAIL) (\S+) client=\S+ (.*)$")


@dataclass
class Result:
    """What a client said of one scenario."""

    client: str
    scenario: str
    passed: bool
    figures: dict[str, int]
    reasons: str


class Java:
    """The stock Java client in one version, with system properties of its own or of the program."""

    def __init__(self, version: str, properties: dict[str, str] | None = None):
        self.version = version
        self.name = f"java-{version}"
        # Warm or not, and however busy the machine is, a send has time.
        self.properties = {"interop.sendTimeout": "10000", **(properties or {})}

    def limit(self, count: int) -> None:
        """Lets each scenario send at most `count` messages where it would send many."""
        self.properties["interop.count"] = str(count)

    def prepare(self) -> None:
        java.build(self.version)

    def command(self, address: str, home: Path, scenarios: list[str]) -> list[str]:
        return java.command(self.version, home, self.properties, [address, *scenarios])


class Cpp:
    """The Apache C++ client in its Python wheel."""

    name = "cpp"
    SCENARIOS = ["sync-send", "oneway", "push-consume", "orderly", "batch", "tag-filter", "delay", "retry"]

    def prepare(self) -> None:
        if not VENV.exists():
            run_quietly([sys.executable, "-m", "venv", str(VENV)])
        requirements = str(INTEROP / "python" / "requirements.txt")
        run_quietly([str(VENV / "bin" / "pip"), "install", "--quiet", "-r", requirements])

    def command(self, address: str, _home: Path, scenarios: list[str]) -> list[str]:
        return [str(VENV / "bin" / "python"), str(INTEROP / "python" / "client.py"), address, *scenarios]


class AliOns:
    """The JavaScript client of npm."""

    name = "ali-ons"

    def prepare(self) -> None:
        if not (INTEROP / "node" / "node_modules" / "ali-ons").exists():
            run_quietly(["npm", "ci", "--no-audit", "--no-fund"], cwd=INTEROP / "node")

    def command(self, address: str, _home: Path, scenarios: list[str]) -> list[str]:
        return ["node", str(INTEROP / "node" / "client.mjs"), address, *scenarios]


ALL = {client.name: client for client in [*map(Java, java.VERSIONS), Cpp(), AliOns()]}


def play(client, address: str, home: Path, scenarios: list[str], fault: Callable[[], None] | None = None) -> list[Result]:
    """Plays `scenarios`, or all ordinary ones; calls `fault` when the client asks for it. All output goes to a file."""
    home.mkdir(parents=True, exist_ok=True)
    results = []
    with (home / "output.log").open("w") as log:
        child = subprocess.Popen(
            client.command(address, home, scenarios),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "HOME": str(home)},
        )
        try:
            for line in child.stdout:
                log.write(line)
                log.flush()
                if line.strip() == "FAULT" and fault is not None:
                    fault()
                    child.stdin.write("done\n")
                    child.stdin.flush()
                if found := VERDICT.match(line):
                    results.append(_result(client.name, found))
                    show(results[-1])
        except BaseException:
            child.kill()
            raise
        finally:
            code = child.wait()
    if not results or (code != 0 and all(result.passed for result in results)):
        reason = f"ended with {code}, see {home}/output.log"
        results.append(Result(client.name, "-", False, {}, reason))
        show(results[-1])
    return results


def _result(client: str, found: re.Match) -> Result:
    figures, _, reasons = found[3].partition(": ")
    numbers = {name: int(value) for name, value in (pair.split("=") for pair in figures.split())}
    return Result(client, found[2], found[1] == "PASS", numbers, reasons)


COLUMNS = ["sent", "acknowledged", "consumed", "duplicated", "lost", "phantom"]


def head() -> None:
    print(f"{'client':<12} {'scenario':<17} {'':<4} " + " ".join(f"{name:>12}" for name in COLUMNS), flush=True)


def show(result: Result) -> None:
    """One line of the table."""
    counts = " ".join(f"{result.figures.get(name, '-'):>12}" for name in COLUMNS)
    extra = " ".join(f"{name}={value}" for name, value in result.figures.items() if name not in COLUMNS)
    verdict = "ok" if result.passed else "FAIL"
    print(f"{result.client:<12} {result.scenario:<17} {verdict:<4} {counts}  {extra}", flush=True)
    if result.reasons:
        print(f"    {result.reasons}", flush=True)
