"""Disks that lose their page cache: an ext4 image for each node, and the ioctl that forgets what was not flushed."""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

# EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH: from now on nothing reaches the disk, not even the journal.
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
IMAGE_BYTES = 2 << 30


class Disk:
    """A sparse image behind a loop device, mounted at `mount`."""

    def __init__(self, image: Path, mount: Path):
        self.mount = mount
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        mount.mkdir()
        self.device = _output("losetup", "--find", "--show", str(image))
        try:
            _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", self.device)
            self._mount()
        except BaseException:
            _run("losetup", "--detach", self.device)
            raise

    def cut(self) -> None:
        """Loses all that was not flushed. Nothing may use the disk: a flush that is under way would return as if it
        had been done.
        """
        directory = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(directory)
        self._unmount()
        self._mount()

    def remove(self) -> None:
        """Unmounts, and gives the loop device back."""
        self._unmount()
        _run("losetup", "--detach", self.device)

    def _mount(self) -> None:
        _run("mount", self.device, str(self.mount))

    def _unmount(self) -> None:
        _run("umount", str(self.mount))


def _run(*command: str) -> None:
    _output(*command)


def _output(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stdout.strip()}")
    return done.stdout.strip()
