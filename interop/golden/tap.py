"""A recording proxy: passes RocketMQ frames on, and keeps each with its connection and direction."""

import asyncio
import json
import struct
from dataclasses import dataclass

FRAME_MAX = 16 << 20
LENGTH = struct.Struct(">I")

# Who sent a frame to whom. The numbers stand in the recordings.
TO_NAME_SERVER, FROM_NAME_SERVER, TO_BROKER, FROM_BROKER = range(4)


@dataclass
class Frame:
    """One frame as it was on the wire, its length included."""

    kind: int
    connection: int
    data: bytes

    def header(self) -> dict:
        """The fields that an index names. Both encodings of the header are understood."""
        mark = LENGTH.unpack_from(self.data, 4)[0]
        encoding, length = mark >> 24, mark & 0xFFFFFF
        header = self.data[8 : 8 + length]
        if encoding == 0:
            fields = json.loads(header)
            return {
                "encoding": "json",
                "code": fields["code"],
                "opaque": fields["opaque"],
                "flag": fields["flag"],
                "keys": sorted(fields.get("extFields") or {}),
            }
        code, _language, _version, opaque, flag, remark = struct.unpack_from(">hBhiii", header)
        at = struct.calcsize(">hBhiii") + remark
        end = at + 4 + LENGTH.unpack_from(header, at)[0]
        at += 4
        keys = []
        while at < end:
            size = struct.unpack_from(">h", header, at)[0]
            keys.append(header[at + 2 : at + 2 + size].decode())
            at += 2 + size
            at += 4 + LENGTH.unpack_from(header, at)[0]
        return {"encoding": "binary", "code": code, "opaque": opaque, "flag": flag, "keys": sorted(keys)}

    def body_length(self) -> int:
        return len(self.data) - 8 - (LENGTH.unpack_from(self.data, 4)[0] & 0xFFFFFF)


class Tap:
    """Listens at some addresses, each before another, and records what passes."""

    def __init__(self):
        self.frames: list[Frame] = []
        self.connections = 0

    async def listen(self, here: tuple[str, int], there: tuple[str, int], to_broker: bool) -> asyncio.Server:
        kinds = (TO_BROKER, FROM_BROKER) if to_broker else (TO_NAME_SERVER, FROM_NAME_SERVER)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = self.connections
            self.connections += 1
            to_server, from_server = await asyncio.open_connection(*there)
            await asyncio.gather(
                self._pass(reader, from_server, kinds[0], connection),
                self._pass(to_server, writer, kinds[1], connection),
            )

        return await asyncio.start_server(accept, *here)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, kind: int, connection: int) -> None:
        try:
            while True:
                length = await source.readexactly(4)
                size = LENGTH.unpack(length)[0]
                if size > FRAME_MAX:
                    raise ValueError(f"a frame of {size} bytes")
                data = length + await source.readexactly(size)
                self.frames.append(Frame(kind, connection, data))
                sink.write(data)
                await sink.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            sink.close()
