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


def enter(why: str, root: bool = False) -> None:
    """Starts this program again, in such a network. `root`: as the real root, and not as one made for the network."""
    unshare = shutil.which("unshare")
    if unshare is None:
        sys.exit(f"{why}, and there is no `unshare` here to make one")
    os.environ[MARK] = "1"
    user = [] if root else ["--user", "--map-root-user"]
    os.execv(unshare, [unshare, *user, "--net", "--", sys.executable, *sys.argv])

