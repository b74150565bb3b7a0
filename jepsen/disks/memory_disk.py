"""A disk in memory that can begin to fail: ext4 on a loop device on a memfd, whose seals refuse what is to fail."""

import fcntl
import os
import subprocess
from pathlib import Path

IMAGE_BYTES = 1 << 30
# Past the superblock, the journal and the inodes that ext4 puts first; what it cannot read at all would unmount it.
READABLE_BYTES = 40 << 20


class MemoryDisk:
    """A disk mounted at `mount`. What is written to it takes memory."""

    def __init__(self, mount: Path, image_bytes: int = IMAGE_BYTES):
        self.mount = mount
        mount.mkdir()
        self.memory = os.memfd_create(mount.name, os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, image_bytes)
        self.device = _output("losetup", "--direct-io=on", "--find", "--show", f"/proc/{os.getpid()}/fd/{self.memory}")
        try:
            # Without lazy initialization nothing is written but what the node writes.
            _output("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.device)
            _output("mount", self.device, str(mount))
        except BaseException:
            _output("losetup", "--detach", self.device)
            raise

    def fail_writes(self) -> None:
        """From now on each write that reaches the disk fails with EIO."""
        fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)

    def fail_reads(self) -> None:
        """From now on what lies behind the first blocks can neither be read nor written, once the cache is dropped."""
        os.ftruncate(self.memory, READABLE_BYTES)
        fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("1")

    def remove(self) -> None:
        """Unmounts, and gives the loop device and the memory back. Nothing may use the disk."""
        _output("umount", str(self.mount))
        _output("losetup", "--detach", self.device)
        os.close(self.memory)


def _output(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stdout.strip()}")
    return done.stdout.strip()
