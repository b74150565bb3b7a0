"""Just enough of RocketMQ's protocol to ask for a route, to send, and to read a queue."""

import json
import socket
import struct

PULL_MESSAGE = 11
GET_ROUTE = 105
SEND_MESSAGE_V2 = 310
SUCCESS = 0
TIMEOUT_SECONDS = 3
# Brokers that make topics have this one.
MAKES_TOPICS = "TBW102"
# Bits of a pull's flags: the subscription is in the request.
HAS_SUBSCRIPTION = 4


class Connection:
    """A connection to a name server or a broker, with one request under way at a time."""

    def __init__(self, host: str, port: int, timeout: float = TIMEOUT_SECONDS):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.opaque = 0

    def close(self) -> None:
        self.socket.close()

    def call(self, code: int, fields: dict[str, object], body: bytes = b"") -> tuple[dict, bytes]:
        """The header and the body of the answer. What the server asks for meanwhile is passed over."""
        self.opaque += 1
        texts = {name: str(value) for name, value in fields.items()}
        header = {"code": code, "language": "OTHER", "version": 399, "opaque": self.opaque, "flag": 0}
        header["extFields"] = texts
        encoded = json.dumps(header).encode()
        self.socket.sendall(struct.pack(">II", 4 + len(encoded) + len(body), len(encoded)) + encoded + body)
        while True:
            length = struct.unpack(">I", self._exactly(4))[0]
            answer = self._exactly(length)
            end = 4 + (struct.unpack(">I", answer[:4])[0] & 0xFFFFFF)
            head = json.loads(answer[4:end])
            if head.get("flag", 0) & 1 and head["opaque"] == self.opaque:
                return head, answer[end:]

    def send(self, topic: str, queue: int, body: bytes) -> int | None:
        """The offset that the message got, or None if the answer is not SEND_OK."""
        fields = {
            "a": "interop", "b": topic, "c": "TBW102", "d": 4, "e": queue, "f": 0, "g": 0, "h": 0, "i": "", "j": 0,
            "k": "false", "l": 16, "m": "false",
        }
        head, _ = self.call(SEND_MESSAGE_V2, fields, body)
        return int(head["extFields"]["queueOffset"]) if head["code"] == SUCCESS else None

    def pull(self, topic: str, queue: int, offset: int) -> list[tuple[int, bytes]]:
        """Offsets and bodies of the next messages from `offset` on; none if there are none."""
        fields = {
            "consumerGroup": "interop", "topic": topic, "queueId": queue, "queueOffset": offset, "maxMsgNums": 32,
            "sysFlag": HAS_SUBSCRIPTION, "commitOffset": 0, "suspendTimeoutMillis": 0, "subscription": "*",
            "subVersion": 1, "expressionType": "TAG",
        }
        head, body = self.call(PULL_MESSAGE, fields)
        return _messages(body) if head["code"] == SUCCESS else []

    def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            part = self.socket.recv(count - len(received))
            if not part:
                raise ConnectionError("the server closed the connection")
            received += part
        return received


def route(port: int, topic: str) -> dict | None:
    """The route of `topic` as the name server on `port` tells it; None if there is none."""
    connection = Connection("127.0.0.1", port)
    try:
        head, body = connection.call(GET_ROUTE, {"topic": topic, "acceptStandardJsonOnly": "true"})
    finally:
        connection.close()
    return json.loads(body) if head["code"] == SUCCESS else None


def connect(name_servers: list[int], topic: str, broker: str, timeout: float = TIMEOUT_SECONDS) -> Connection:
    """A connection to `broker`, wherever the first name server that answers says it is."""
    for port in name_servers:
        try:
            # As stock producers do for a topic that the first message will make.
            found = route(port, topic) or route(port, MAKES_TOPICS) or {"brokerDatas": []}
        except OSError:
            continue
        for data in found["brokerDatas"]:
            if data["brokerName"] == broker and "0" in data["brokerAddrs"]:
                host, _, broker_port = data["brokerAddrs"]["0"].rpartition(":")
                return Connection(host, int(broker_port), timeout)
    raise ConnectionError(f"no name server knows where {broker} is")


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    """Offset and body of each stored message, in the layout of RocketMQ's commit log."""
    found = []
    while data:
        size = struct.unpack(">I", data[:4])[0]
        record, data = data[:size], data[size:]
        offset, _, flags = struct.unpack(">qqi", record[20:40])
        # Born and store host have 8 bytes each, or 20 with an address of IPv6.
        at = 48 + (20 if flags & 0x10 else 8) + 8 + (20 if flags & 0x20 else 8) + 12
        length = struct.unpack(">i", record[at:at + 4])[0]
        found.append((offset, record[at + 4:at + 4 + length]))
    return found
