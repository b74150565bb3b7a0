"""A network of its own for this program and what it starts: loopback, and nothing else to listen on or to reach."""

import fcntl
import os
import shutil
import socket
import struct
import sys

MARK = "QUORUMLOG_INTEROP_ISOLATED"
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


def entered() -> bool:
    """True in such a network, whose loopback is up then."""
    if not os.environ.get(MARK):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
    return True


def enter() -> None:
    """Starts this program again, in such a network."""
    unshare = shutil.which("unshare")
    if unshare is None:
        sys.exit("genuine RocketMQ listens on all addresses, and there is no `unshare` here to keep it in")
    os.environ[MARK] = "1"
    os.execv(unshare, [unshare, "--user", "--map-root-user", "--net", "--", sys.executable, *sys.argv])

