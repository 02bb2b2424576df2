"""A virtual machine that can lose its power: its first file system, its disk, its console.

Boots Debian's kernel under qemu, without KVM, on an ext4 disk behind `nbd_disk.py`. The daemon's two ports are reached
through ports of the host.
"""

from __future__ import annotations

import gzip
import json
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BOOT_S = 300.0  # without KVM, beside other work
# In the order in which they are loaded.
MODULES = (
    "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover "
    "virtio_net crc32c_generic crc16 libcrc32c mbcache jbd2 ext4"
).split()


class RigError(Exception):
    """The rig itself does not work: nothing is known about the daemon."""


@dataclass(frozen=True)
class Parts:
    """What a machine is made of."""

    kernel: Path
    modules: Path
    busybox: Path
    daemon: Path
    lying_sync: Path
    work: Path


def make_initramfs(parts: Parts) -> Path:
    """The first file system: busybox, the daemon with its libraries, kernel modules, guest-init.sh."""
    root = parts.work / "root"
    for name in ("bin", "proc", "sys", "dev", "data", "modules", "lib", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(HERE / "guest-init.sh", root / "init")
    for program, name in ((parts.busybox, "busybox"), (parts.daemon, "tilecatcher")):
        shutil.copy(program, root / "bin" / name)
    (root / "bin/sh").symlink_to("busybox")
    shutil.copy(parts.lying_sync, root / "lib/libeatmydata.so")
    for library in _libraries(parts.daemon) | _libraries(parts.lying_sync):
        place = root / library.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    for module in MODULES:
        shutil.copy(_module(parts.modules, module), root / "modules")
    (root / "modules/order").write_text("".join(f"{module}.ko\n" for module in MODULES))
    for program in (root / "init", root / "bin/busybox", root / "bin/tilecatcher"):
        program.chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    archive = subprocess.run(
        [parts.busybox, "cpio", "-o", "-H", "newc"], input=names.encode(), cwd=root, capture_output=True, check=True
    )
    image = parts.work / "initramfs.gz"
    image.write_bytes(gzip.compress(archive.stdout, compresslevel=1))
    return image


def make_disk(work: Path, size: str) -> Path:
    """An empty ext4 disk."""
    image = work / "disk.img"
    subprocess.run(["truncate", "-s", size, image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    return image


def _libraries(program: Path) -> set[Path]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return {Path(found) for found in re.findall(r"(/\S+) \(0x", listed)}


def _module(modules: Path, name: str) -> Path:
    found = list(modules.rglob(f"{name}.ko"))
    if len(found) != 1:
        raise RigError(f"{modules}: {len(found)} modules {name}")
    return found[0]


class Machine:
    """Runs from its making to its cut."""

    def __init__(self, parts: Parts, initramfs: Path, disk: Path, keep: float, seed: int) -> None:
        nbd = parts.work / "disk.sock"
        nbd.unlink(missing_ok=True)
        server = [sys.executable, HERE / "nbd_disk.py", disk, nbd, "--keep", str(keep), "--seed", str(seed)]
        self._disk = subprocess.Popen(server, stdout=subprocess.PIPE, text=True)
        if self._disk.stdout is None or self._disk.stdout.readline() != "ready\n":
            raise RigError("the disk does not start")
        self.capture_port, self.http_port = _free_port(), _free_port()
        forwards = f"hostfwd=tcp:127.0.0.1:{self.capture_port}-:5002,hostfwd=tcp:127.0.0.1:{self.http_port}-:5001"
        # fmt: off
        self._qemu = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "768", "-display", "none",
             "-no-reboot", "-serial", "stdio", "-monitor", "none", "-kernel", parts.kernel, "-initrd", initramfs,
             "-append", "console=ttyS0 quiet panic=-1",
             "-drive", f"file=nbd:unix:{nbd},format=raw,if=virtio,cache=writeback",
             "-netdev", f"user,id=net,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=net"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )
        # fmt: on
        self._console: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read_console, daemon=True).start()

    def __enter__(self) -> Machine:
        try:
            self.await_line("GUEST booted")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_daemon(self, ack: str, lying_sync: bool = False) -> None:
        self._say(f"start {ack}{' lying-sync' if lying_sync else ''}")
        self.await_line("ready capture=")

    def kill_daemon(self) -> None:
        self._say("kill")
        self.await_line("GUEST killed")

    def cut(self) -> dict[str, int | float]:
        """Cuts the power: first the processor stops, then the disk forgets."""
        self._qemu.kill()
        self._qemu.wait()
        self._disk.terminate()
        report, _ = self._disk.communicate(timeout=60)
        return json.loads(report)

    def await_line(self, wanted: str) -> None:
        until = time.monotonic() + BOOT_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None or "GUEST failed" in line:
                tail = "\n".join(self._console[-30:])
                raise RigError(f"no {wanted!r} from the machine; its console:\n{tail}")
            if wanted in line:
                return

    def close(self) -> None:
        for process in (self._qemu, self._disk):
            if process.poll() is None:
                process.kill()
                process.wait()

    def _say(self, line: str) -> None:
        assert self._qemu.stdin is not None, "a pipe"
        self._qemu.stdin.write(line + "\n")
        self._qemu.stdin.flush()

    def _read_console(self) -> None:
        assert self._qemu.stdout is not None, "a pipe"
        for line in self._qemu.stdout:
            self._console.append(line.rstrip())
            self._lines.put(line)
        self._lines.put(None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
