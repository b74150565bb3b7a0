"""Genuine RocketMQ from Maven: a name server and a plain master, or three brokers in DLedger mode.

Its replication services listen on all addresses, whatever the configuration says. So whoever starts it does so in
a network of its own, by `isolation.enter`.
"""

from pathlib import Path

from harness import remoting
from harness.process import Process, accepts, free_ports, run_quietly

POM = Path(__file__).resolve().parents[1] / "genuine" / "pom.xml"
VERSION = "5.3.3"
LIBRARIES = Path(__file__).resolve().parents[2] / "target" / "interop" / f"genuine-{VERSION}" / "lib"
HEAP = "-Xmx512m"
# DLedger casts to a class that Java 17 does not export.
OPEN = ["--add-exports", "java.base/sun.nio.ch=ALL-UNNAMED", "--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED"]
# A slow machine is no reason to refuse a message, and small files let a broker be up at once.
STORE = """mappedFileSizeCommitLog=67108864
mappedFileSizeConsumeQueue=600000
maxHashSlotNum=50000
maxIndexNum=200000
flushDiskType={flush}
waitTimeMillsInSendQueue=5000
diskMaxUsedSpaceRatio=98
warmMapedFileEnable=false
"""


def fetch() -> None:
    """Gets the servers' jars by Maven, the first time."""
    if not LIBRARIES.exists():
        command = ["mvn", "-q", "-B", "-f", str(POM), f"-Drocketmq.version={VERSION}", "generate-resources"]
        run_quietly(command)


class Genuine:
    """A running RocketMQ. `advertised` is what routes name as the brokers' address, if not where they listen."""

    def __init__(self, directory: Path, dledger: bool = False, flush: str = "ASYNC_FLUSH", advertised: str = "127.0.0.1"):
        self.directory = directory
        self.flush = flush
        self.advertised = advertised
        self.name_port, *rest = free_ports(10)
        # A broker also listens two ports below its own.
        self.broker_ports = rest[:3] if dledger else rest[:1]
        self.peer_ports = rest[3:6]
        self.name_server: Process | None = None
        self.brokers: list[Process] = []
        self.dledger = dledger

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.name_port}"

    def start(self) -> "Genuine":
        home = self.directory / "home"
        home.mkdir(parents=True, exist_ok=True)
        conf = self._write("namesrv.conf", f"listenPort={self.name_port}\nbindAddress=127.0.0.1\n")
        self.name_server = self._java("namesrv", "org.apache.rocketmq.namesrv.NamesrvStartup", conf)
        self.name_server.wait_for(lambda: accepts(self.name_port))
        for node in range(len(self.broker_ports)):
            self.brokers.append(self.start_broker(node))
        for broker in self.brokers:
            # It listens a while before the name server knows it.
            broker.wait_for(lambda broker=broker: "boot success" in broker.text(), 120)
            broker.wait_for(lambda: self.leader() is not None, 120)
        return self

    def start_broker(self, node: int) -> Process:
        text = STORE.format(flush=self.flush) + (
            f"brokerClusterName=genuine\nbrokerName=broker-a\nlistenPort={self.broker_ports[node]}\n"
            f"bindAddress=127.0.0.1\nbrokerIP1={self.advertised}\nnamesrvAddr={self.address}\n"
            f"storePathRootDir={self.directory}/store{node}\nstorePathCommitLog={self.directory}/store{node}/commitlog\n"
        )
        if self.dledger:
            peers = ";".join(f"n{at}-127.0.0.1:{port}" for at, port in enumerate(self.peer_ports))
            text += f"enableDLegerCommitLog=true\ndLegerGroup=broker-a\ndLegerPeers={peers}\ndLegerSelfId=n{node}\n"
        else:
            text += f"brokerId=0\nbrokerRole=ASYNC_MASTER\nhaListenPort={self.peer_ports[0]}\n"
        conf = self._write(f"broker{node}.conf", text)
        return self._java(f"broker{node}", "org.apache.rocketmq.broker.BrokerStartup", conf)

    def leader(self) -> int | None:
        """Which broker leads: the name server knows it as number 0 of its group."""
        found = remoting.route(self.name_port, "TBW102") or {"brokerDatas": []}
        addresses = [broker["brokerAddrs"].get("0", "") for broker in found["brokerDatas"]]
        ports = [int(address.rpartition(":")[2]) for address in addresses if address]
        return self.broker_ports.index(ports[0]) if ports else None

    def kill(self, node: int) -> None:
        self.brokers[node].kill()

    def processes(self) -> list[Process]:
        return [*self.brokers, self.name_server]

    def stop(self) -> None:
        for process in [*self.brokers, self.name_server]:
            if process is not None:
                process.stop()

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path

    def _java(self, name: str, main: str, conf: Path) -> Process:
        home = self.directory / "home"
        command = [
            "java", HEAP, "-Xms256m", "-XX:MaxDirectMemorySize=512m", *OPEN,
            f"-Drocketmq.home.dir={home}", f"-Duser.home={home}", "-cp", f"{LIBRARIES}/*", main, "-c", str(conf),
        ]
        return Process(name, command, self.directory / f"{name}.log", {"ROCKETMQ_HOME": str(home)})
