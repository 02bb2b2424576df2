"""Cuts the power of a machine that is taking in tiles, and looks afterwards for every tile that it acknowledged.

Senders run on the host: what was acknowledged is known outside of the machine that dies. Three scenarios:

- durable: cuts at random moments under load. Nothing acknowledged may be lost or altered.
- killed: the daemon's syncs do nothing, then it is killed (kill -9); the next daemon, with honest syncs, is sent the same
  tiles, which it finds in the journal, and answers; then the power is cut. What the second one answered must be there.
- control: as the first, with syncs that do nothing. Acknowledged tiles must be lost, or the rig shows nothing.

A summary in JSON goes to stdout. Exit code 0: as it must be; 1: tiles were lost or altered; 3: the rig does not work.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from machine import Machine, Parts, RigError, make_disk, make_initramfs
from tilecatcher import Client, Sender, ServerUnreachable, Tile, TilecatcherError, minimal_log
from tilecatcher.sender import Pending

ACQ = 7
SENDERS = 3
WINDOW = 6
SIZES = (700, 20_000, 90_000, 300_000)
DISK = "1G"
KILLED_TILES = 60
CHECK_S = 60.0


@dataclass(frozen=True)
class Place:
    """Where a tile is, and with that what it holds."""

    col: int
    row: int

    def image(self, seed: int) -> bytes:
        noise = random.Random(f"{seed}:{self.col}:{self.row}")
        return noise.randbytes(SIZES[self.row % len(SIZES)])


@dataclass
class Result:
    """What came of a scenario."""

    acknowledged: int = 0
    lost: list[Place] = field(default_factory=list)
    altered: list[Place] = field(default_factory=list)
    cuts: list[dict[str, object]] = field(default_factory=list)

    def summary(self) -> dict[str, object]:
        return {
            "acknowledged": self.acknowledged,
            "lost": len(self.lost),
            "altered": len(self.altered),
            "first_lost": [f"column {place.col} row {place.row}" for place in self.lost[:5]],
            "cuts": self.cuts,
        }


class Rig:
    """Machines on one disk after another, and the tiles sent to them."""

    def __init__(self, parts: Parts, initramfs: Path, seed: int, keep: float) -> None:
        self._parts = parts
        self._initramfs = initramfs
        self._seed = seed
        self._keep = keep
        self._random = random.Random(seed)
        self._cut_number = 0

    def durable(self, cuts: int) -> Result:
        result, acknowledged = Result(), []
        disk = make_disk(self._parts.work, DISK)
        for cut in range(cuts):
            with self._boot(disk) as machine:
                machine.start_daemon("durable")
                self._start_acquisition(machine)
                self._check(machine, acknowledged, result)
                acknowledged += self._load_and_cut(machine, range(cut * SENDERS, (cut + 1) * SENDERS), result)
        return self._look_after(disk, acknowledged, result)

    def killed(self) -> Result:
        result, places = Result(), [Place(0, row) for row in range(KILLED_TILES)]
        disk = make_disk(self._parts.work, DISK)
        with self._boot(disk) as machine:
            machine.start_daemon("durable")
            self._start_acquisition(machine)
            machine.kill_daemon()
            machine.start_daemon("durable", lying_sync=True)
            first = self._send(machine, places)
            machine.kill_daemon()
            machine.start_daemon("durable")
            second = self._send(machine, places)
            report = machine.cut()
        known = sum(a.receipt().tile_id == b.receipt().tile_id for a, b in zip(first, second))
        result.cuts.append({"sent_twice": len(places), "same_id": known, **report})
        if known == 0:
            raise RigError("the second daemon knew none of the tiles: this scenario shows nothing")
        return self._look_after(disk, places, result)

    def control(self) -> Result:
        result = Result()
        disk = make_disk(self._parts.work, DISK)
        with self._boot(disk) as machine:
            machine.start_daemon("durable")
            self._start_acquisition(machine)
            machine.kill_daemon()
            machine.start_daemon("durable", lying_sync=True)
            acknowledged = self._load_and_cut(machine, range(SENDERS), result)
        return self._look_after(disk, acknowledged, result)

    def _boot(self, disk: Path) -> Machine:
        self._cut_number += 1
        seed = self._random.randrange(2**32)
        return Machine(self._parts, self._initramfs, disk, self._keep, seed)

    def _look_after(self, disk: Path, acknowledged: list[Place], result: Result) -> Result:
        """The last start: everything that was ever acknowledged."""
        result.acknowledged = len(acknowledged)
        with self._boot(disk) as machine:
            machine.start_daemon("durable")
            self._check(machine, acknowledged, result)
        return result

    def _start_acquisition(self, machine: Machine) -> None:
        client = Client(http=f"http://127.0.0.1:{machine.http_port}", capture=("127.0.0.1", machine.capture_port))
        client.start_acquisition(f"{ACQ}_logfile.ini", minimal_log(cols=1000, rows=1000))

    def _load_and_cut(self, machine: Machine, columns: range, result: Result) -> list[Place]:
        """Sends from several threads, cuts the power in the middle; the places of which the answer had come."""
        answered = threading.Event()
        sent: dict[int, list[tuple[Place, Pending]]] = {col: [] for col in columns}
        problems: list[BaseException] = []

        def send(col: int) -> None:
            try:
                self._send_until_cut(machine, col, sent[col], answered)
            except BaseException as error:  # in another thread nobody would see it
                problems.append(error)

        senders = [threading.Thread(target=send, args=(col,)) for col in columns]
        for sender in senders:
            sender.start()
        if not answered.wait(CHECK_S):
            raise RigError(f"no tile was acknowledged: {problems}")
        after_s = self._random.uniform(0.3, 4.0)
        time.sleep(after_s)
        report = machine.cut()
        for sender in senders:
            sender.join()
        if problems:
            raise RigError(f"a sender failed before the cut: {problems[0]}")
        everything = itertools.chain.from_iterable(sent.values())
        places = [place for place, pending in everything if pending.done() and pending.receipt().status == 0]
        result.cuts.append({"after_s": round(after_s, 2), "acknowledged": len(places), **report})
        return places

    def _send_until_cut(
        self, machine: Machine, col: int, sent: list[tuple[Place, Pending]], answered: threading.Event
    ) -> None:
        checksum = ("crc32", "md5", "sha256")[col % 3]
        try:
            sender = Sender(("127.0.0.1", machine.capture_port), window=WINDOW, checksum=checksum, retry_s=0)
            for row in itertools.count():
                place = Place(col, row)
                sent.append((place, sender.send(self._tile(place))))
                if sender.acknowledged:
                    answered.set()
        except ServerUnreachable:
            return

    def _send(self, machine: Machine, places: list[Place]) -> list[Pending]:
        with Sender(("127.0.0.1", machine.capture_port), window=WINDOW, checksum="crc32", retry_s=0) as sender:
            return [sender.send(self._tile(place)) for place in places]

    def _tile(self, place: Place) -> Tile:
        return Tile(acq=ACQ, col=place.col, row=place.row, image=place.image(self._seed))

    def _check(self, machine: Machine, places: list[Place], result: Result) -> None:
        for place, content in self._contents(machine, places):
            if content is None:
                if place not in result.lost:
                    result.lost.append(place)
            elif content != place.image(self._seed) and place not in result.altered:
                result.altered.append(place)

    def _contents(self, machine: Machine, places: list[Place]) -> Iterator[tuple[Place, bytes | None]]:
        """What the daemon has for each place: `None` when it knows nothing of it, an error's text when it can not read it."""
        connection = http.client.HTTPConnection("127.0.0.1", machine.http_port, timeout=CHECK_S)
        for place in places:
            connection.request("GET", f"/service/v1/acquisition/{ACQ}/tile/{place.col}/{place.row}/content")
            answer = connection.getresponse()
            content = answer.read()
            yield place, None if answer.status == 404 else content
        connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=3, help="power cuts under load")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=float, default=0.5, help="share of unflushed writes of which something survives")
    parser.add_argument("--only", choices=("durable", "killed", "control"), help="one scenario only")
    for part in ("kernel", "modules", "busybox", "daemon", "lying-sync"):
        parser.add_argument(f"--{part}", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="power-cut-") as work:
        parts = Parts(args.kernel, args.modules, args.busybox, args.daemon, args.lying_sync, Path(work))
        try:
            return run(args, parts)
        except (RigError, TilecatcherError, OSError, http.client.HTTPException) as error:
            print(f"power-cut: {error}", file=sys.stderr)
            return 3


def run(args: argparse.Namespace, parts: Parts) -> int:
    rig = Rig(parts, make_initramfs(parts), args.seed, args.keep)
    scenarios = {"durable": lambda: rig.durable(args.cuts), "killed": rig.killed, "control": rig.control}
    results: dict[str, Result] = {}
    for name, scenario in scenarios.items():
        if args.only in (None, name):
            began = time.monotonic()
            results[name] = result = scenario()
            words = f"{result.acknowledged} acknowledged, {len(result.lost)} lost, {len(result.altered)} altered"
            print(f"power-cut: {name}: {words}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    summary = {name: result.summary() for name, result in results.items()}
    print(json.dumps({"seed": args.seed, "keep": args.keep, **summary}, indent=1))
    if "control" in results and not results["control"].lost:
        raise RigError("without syncs nothing was lost: this disk does not forget, the other results show nothing")
    bad = [name for name, result in results.items() if name != "control" and (result.lost or result.altered)]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
