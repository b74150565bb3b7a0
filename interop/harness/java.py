"""The program for the stock Java client: how it is built for a version of the client, and run."""

import os
from pathlib import Path

from harness.process import run_quietly

POM = Path(__file__).resolve().parents[1] / "java" / "pom.xml"
BUILT = Path(__file__).resolve().parents[2] / "target" / "interop"
VERSIONS = ["4.9.8", "5.5.0"]


def build(version: str) -> None:
    """Compiles against this version of the client; Maven fetches it the first time."""
    command = ["mvn", "-q", "-B", "-f", str(POM), f"-Drocketmq.version={version}", "process-classes"]
    run_quietly(command)


def command(version: str, home: Path, properties: dict[str, str], arguments: list[str]) -> list[str]:
    """Plays scenarios: `arguments` are the name server and the scenarios' names. Logs and offsets go below `home`."""
    # The quick compiler alone: a scenario is over before the other one pays.
    return _java(version, home, ["-XX:TieredStopAtLevel=1"], properties, "Main", arguments)


def load_command(version: str, home: Path, arguments: list[str]) -> list[str]:
    """Sends as fast as it can."""
    return _java(version, home, [], {}, "Load", arguments)


def _java(
    version: str, home: Path, options: list[str], properties: dict[str, str], main: str, arguments: list[str]
) -> list[str]:
    built = BUILT / f"java-{version}"
    all_properties = {"user.home": str(home), "rocketmq.client.logRoot": f"{home}/logs", **properties}
    return [
        "java", "-Xmx256m", *options, *(f"-D{name}={value}" for name, value in all_properties.items()),
        "-cp", os.pathsep.join([str(built / "classes"), str(built / "lib" / "*")]),
        f"org.quorumlog.interop.{main}", *arguments,
    ]
