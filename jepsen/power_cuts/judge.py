"""What a cluster holds after a cut, compared with what it acknowledged, node by node."""

import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field

from harness import quorumlog, remoting
from loads import Ack, Load

POLL_SECONDS = 0.1


@dataclass
class Findings:
    """What one cut did. A record is lost if its place holds something else or nothing."""

    acknowledged: int = 0
    lost: list[Ack] = field(default_factory=list)
    moved: int = 0
    differing: int = 0
    agreed_after: float | None = None

    def oldest_lost(self, cut: float) -> float:
        """How long before the cut the first lost record was acknowledged, in seconds; 0 if it was after it."""
        return max([0.0, *(cut - ack.at for ack in self.lost)])


NODES = range(quorumlog.NODES)


def agreement(cluster: quorumlog.Cluster, seconds: float, nodes=NODES) -> dict[str, int] | None:
    """Waits until all these nodes hold and have applied the same part of every log, and have one leader for each.

    Returns the end of each log, or None if that does not happen.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        told = [cluster.status(node) for node in nodes]
        ends = [{log["log"]: (log["end"], log["committed"], log["applied"]) for log in logs} for logs in told]
        whole = all(ends) and all(each == ends[0] for each in ends)
        if whole and cluster.leaders() and all(len(set(positions)) == 1 for positions in ends[0].values()):
            return {log: end for log, (end, _, _) in ends[0].items()}
        time.sleep(POLL_SECONDS)
    return None


class Judge:
    """Looks at a cluster whose loads are paused. Remembers what it has reported."""

    def __init__(self, cluster: quorumlog.Cluster, loads: list[Load], topic: str, nodes=NODES):
        self.cluster = cluster
        self.nodes = nodes
        self.loads = loads
        self.topic = topic
        # For each log: the first index to look at in the next look.
        self.begin: dict[str, int] = {}

    def look(self, ends: dict[str, int], acks: list[Ack], whole: bool = False) -> Findings:
        """Compares the logs' bytes on all nodes, and `acks` with what is in their places.

        Looks only at what is new since the last look, or at the whole.
        """
        findings = Findings(acknowledged=len(acks))
        held: dict[tuple, bytes] = {}
        # Clients cannot read the system's log. That its positions agree has been seen.
        for log in set(ends) - {quorumlog.SYSTEM_LOG}:
            begin = 0 if whole else self.begin.get(log, 0)
            copies = [self._records(node, log, begin) for node in self.nodes]
            # What a broker appends while the copies are read is in the next comparison.
            indexes = {index for index in set().union(*copies) if index < ends[log]}
            findings.differing += sum(len({copy.get(index) for copy in copies}) > 1 for index in indexes)
            held.update(((log, index), record) for index, record in copies[0].items())
            self.begin[log] = max(begin, ends[log])
        queues = Counter()
        for ack in acks:
            if ack.place[0] == self.topic:
                queues[ack.place[:3]] = min(queues.get(ack.place[:3], ack.place[3]), ack.place[3])
        for queue, offset in queues.items():
            held.update(self._messages(queue, offset))
        everything = set(held.values())
        for ack in acks:
            if held.get(ack.place) != ack.payload:
                findings.lost.append(ack)
                findings.moved += ack.payload in everything
        return findings

    def _records(self, node: int, log: str, begin: int) -> dict[int, bytes]:
        """What `node` has of `log` from `begin` on."""
        command = [
            str(self.cluster.binary), "read", log, "--from", str(begin), "--format", "hex",
            "--from-node", str(node + 1), "--node", f"127.0.0.1:{self.cluster.client[node]}",
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()}")
        pairs = (line.split() for line in done.stdout.splitlines())
        return {int(index): bytes.fromhex(rest[0] if rest else "") for index, *rest in pairs}

    def _messages(self, queue: tuple, offset: int) -> dict[tuple, bytes]:
        """What consumers get from a queue, from `offset` on."""
        topic, broker, number = queue
        found = {}
        connection = remoting.connect(self.cluster.name, topic, broker, timeout=30)
        try:
            while messages := connection.pull(topic, number, offset):
                found.update(((*queue, at), body) for at, body in messages)
                offset = messages[-1][0] + 1
        finally:
            connection.close()
        return found
