"""Just enough of RocketMQ's protocol to ask a name server for a route."""

import json
import socket
import struct

GET_ROUTE = 105
TIMEOUT_SECONDS = 3


def route(port: int, topic: str) -> dict | None:
    """The route of `topic` as the name server on `port` tells it; None if there is none."""
    fields = {"topic": topic, "acceptStandardJsonOnly": "true"}
    header = {"code": GET_ROUTE, "language": "OTHER", "version": 0, "opaque": 1, "flag": 0, "extFields": fields}
    encoded = json.dumps(header).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(struct.pack(">II", 4 + len(encoded), len(encoded)) + encoded)
        length = struct.unpack(">I", _exactly(connection, 4))[0]
        answer = _exactly(connection, length)
    end = 4 + (struct.unpack(">I", answer[:4])[0] & 0xFFFFFF)
    return json.loads(answer[end:]) if json.loads(answer[4:end])["code"] == 0 else None


def _exactly(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            raise ConnectionError("the name server closed the connection")
        received += part
    return received
