"""The program for the stock Java client: how it is built for a version of the client, and run."""

import os
import subprocess
from pathlib import Path

POM = Path(__file__).resolve().parents[1] / "java" / "pom.xml"
BUILT = Path(__file__).resolve().parents[2] / "target" / "interop"
VERSIONS = ["4.9.8", "5.5.0"]


def build(version: str) -> None:
    """Compiles against this version of the client; Maven fetches it the first time."""
    command = ["mvn", "-q", "-B", "-f", str(POM), f"-Drocketmq.version={version}", "process-classes"]
    subprocess.run(command, check=True)


def command(version: str, home: Path, properties: dict[str, str], arguments: list[str]) -> list[str]:
    """Plays scenarios: `arguments` are the name server and the scenarios' names. Logs and offsets go below `home`."""
    built = BUILT / f"java-{version}"
    set_properties = [f"-D{name}={value}" for name, value in properties.items()]
    return [
        "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Duser.home={home}",
        f"-Drocketmq.client.logRoot={home}/logs", *set_properties,
        "-cp", os.pathsep.join([str(built / "classes"), str(built / "lib" / "*")]),
        "org.quorumlog.interop.Main", *arguments,
    ]
