"""A disk with a volatile write cache, served over NBD: what a power cut does to it can be chosen.

Writes stay in memory, sector by sector, until the client says FLUSH, or wrote with FUA. SIGTERM is the power cut: of what
was not flushed, each write is lost, kept, or torn (some of its sectors are kept), as the seed has it; then a line of JSON
says what happened. Serves one client. Must never let an unflushed byte reach the image before the cut.

    nbd_disk.py IMAGE SOCKET --keep 0.5 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import struct
import time
from pathlib import Path
from typing import NoReturn

SECTOR = 512

# The protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
GREETING = struct.pack(">8s8sH", b"NBDMAGIC", b"IHAVEOPT", 1 | 2)  # fixed newstyle, no zeroes
OPTION = struct.Struct(">8sII")
OPTION_EXPORT_NAME, OPTION_ABORT, OPTION_INFO, OPTION_GO = 1, 2, 6, 7
OPTION_REPLY = struct.Struct(">QIII")
OPTION_REPLY_MAGIC = 0x3E889045565A9
REPLY_ACK, REPLY_INFO, REPLY_UNSUPPORTED = 1, 3, 0x80000001
INFO_EXPORT = 0
FLAGS = 1 | 4 | 8  # has flags, can flush, can FUA
REQUEST = struct.Struct(">IHHQQI")
REQUEST_MAGIC = 0x25609513
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FORCE_UNIT_ACCESS = 1
REPLY = struct.Struct(">IIQ")
REPLY_MAGIC = 0x67446698
EINVAL = 22


class VolatileDisk:
    """The image and what its cache holds."""

    def __init__(self, image: Path, keep: float, seed: int, flush_ms: int) -> None:
        self._file = os.open(image, os.O_RDWR)
        self.size = os.fstat(self._file).st_size
        self._keep = keep
        self._flush_ms = flush_ms
        self._random = random.Random(seed)
        # Sector -> its unflushed versions, oldest first, each with the number of its write.
        self._cache: dict[int, list[tuple[int, bytes]]] = {}
        self.writes = 0
        self.flushes = 0

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(os.pread(self._file, length, offset))
        for place, sector in enumerate(range(offset // SECTOR, (offset + length) // SECTOR)):
            if versions := self._cache.get(sector):
                data[place * SECTOR : (place + 1) * SECTOR] = versions[-1][1]
        return bytes(data)

    def write(self, offset: int, data: bytes, force: bool) -> None:
        self.writes += 1
        sectors = range(offset // SECTOR, (offset + len(data)) // SECTOR)
        if force:
            os.pwrite(self._file, data, offset)
            for sector in sectors:
                self._cache.pop(sector, None)
            return
        for place, sector in enumerate(sectors):
            version = (self.writes, data[place * SECTOR : (place + 1) * SECTOR])
            self._cache.setdefault(sector, []).append(version)

    def flush(self) -> None:
        # A disk needs its time for this, and the power may go meanwhile.
        time.sleep(self._flush_ms / 1000)
        self.flushes += 1
        for sector, versions in self._cache.items():
            os.pwrite(self._file, versions[-1][1], sector * SECTOR)
        self._cache.clear()

    def cut(self) -> dict[str, int | float]:
        """The power goes. What was pending is lost, kept or torn, write by write."""
        pending = {write for versions in self._cache.values() for write, _ in versions}
        fates = {write: self._fate() for write in sorted(pending)}
        sectors_kept = 0
        for sector, versions in self._cache.items():
            # Of several versions of a sector, an older one may have reached the platter and a newer one not.
            kept = [data for write, data in versions if self._random.random() < fates[write]]
            if kept:
                os.pwrite(self._file, kept[-1], sector * SECTOR)
                sectors_kept += 1
        kept, lost = (sum(fate == share for fate in fates.values()) for share in (1.0, 0.0))
        return {
            "writes": self.writes,
            "flushes": self.flushes,
            "pending_writes": len(pending),
            "pending_bytes": len(self._cache) * SECTOR,
            "kept_writes": kept,
            "lost_writes": lost,
            "torn_writes": len(pending) - kept - lost,
            "kept_bytes": sectors_kept * SECTOR,
        }

    def _fate(self) -> float:
        """The share of a write's sectors that survives."""
        if self._random.random() >= self._keep:
            return 0.0
        return 1.0 if self._random.random() < 0.5 else self._random.uniform(0.1, 0.9)


class Connection:
    """One NBD client, from the greeting to its end."""

    def __init__(self, stream: socket.socket, disk: VolatileDisk) -> None:
        self._stream = stream
        self._disk = disk

    def serve(self) -> None:
        self._stream.sendall(GREETING)
        self._receive(4)  # the client's flags
        if self._negotiate():
            while self._answer_request():
                pass

    def _negotiate(self) -> bool:
        """True when the client goes on to read and write."""
        while True:
            _, option, length = OPTION.unpack(self._receive(OPTION.size))
            self._receive(length)
            if option == OPTION_EXPORT_NAME:
                self._stream.sendall(struct.pack(">QH", self._disk.size, FLAGS))
                return True
            if option in (OPTION_INFO, OPTION_GO):
                export = struct.pack(">HQH", INFO_EXPORT, self._disk.size, FLAGS)
                self._reply_option(option, REPLY_INFO, export)
                self._reply_option(option, REPLY_ACK)
                if option == OPTION_GO:
                    return True
            elif option == OPTION_ABORT:
                self._reply_option(option, REPLY_ACK)
                return False
            else:
                self._reply_option(option, REPLY_UNSUPPORTED)

    def _reply_option(self, option: int, reply: int, data: bytes = b"") -> None:
        self._stream.sendall(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, reply, len(data)) + data)

    def _answer_request(self) -> bool:
        """False when the client has said goodbye."""
        magic, flags, kind, handle, offset, length = REQUEST.unpack(self._receive(REQUEST.size))
        if magic != REQUEST_MAGIC:
            raise ConnectionError("not an NBD request")
        data, error = b"", 0
        if kind == READ:
            data = self._disk.read(offset, length)
        elif kind == WRITE:
            self._disk.write(offset, self._receive(length), bool(flags & FORCE_UNIT_ACCESS))
        elif kind == FLUSH:
            self._disk.flush()
        elif kind == DISCONNECT:
            return False
        else:
            error = EINVAL
        self._stream.sendall(REPLY.pack(REPLY_MAGIC, error, handle) + data)
        return True

    def _receive(self, length: int) -> bytes:
        taken = bytearray()
        while len(taken) < length:
            more = self._stream.recv(length - len(taken))
            if not more:
                raise ConnectionError("the client is gone")
            taken += more
        return bytes(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("socket", type=Path)
    parser.add_argument("--keep", type=float, default=0.0, help="share of unflushed writes of which something survives")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flush-ms", type=int, default=15, help="time that a flush takes")
    args = parser.parse_args()
    disk = VolatileDisk(args.image, args.keep, args.seed, args.flush_ms)

    def power_cut(*_: object) -> NoReturn:
        print(json.dumps(disk.cut()), flush=True)
        os._exit(0)

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(args.socket))
    listener.listen(1)
    signal.signal(signal.SIGTERM, power_cut)
    print("ready", flush=True)
    stream, _ = listener.accept()
    # The cache outlives its client, as a disk's does a crash of the machine: only SIGTERM ends this.
    with contextlib.suppress(ConnectionError):
        Connection(stream, disk).serve()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
