#!/usr/bin/env python3
"""Real faults, and the alerts that they raise in a real Prometheus: disks that fill, crawl and rot, senders that do wrong.

    tests/monitoring/faults.py [--program target/debug/tilecatcher] [NAME...]

The rules are those of deploy/prometheus, with `for` taken out and the five minutes of a capture that stands still made three
seconds. Every alert must be raised by one of the faults. Takes some minutes. Needs root for mounts, and strace. Exit code 1
when an alert did not fire.
"""

import argparse
import contextlib
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

from rig import LOG, PATIENCE, ROOT, RULES, Daemon, Prometheus, await_that, put_tile, read, start_acquisition

NOISE = bytes((n * 37 + n // 251) % 256 for n in range(100_000))


class Scene:
    """One fault: a directory, daemons, a Prometheus, and the alerts that have fired."""

    def __init__(self, program, directory):
        self.program, self.directory = program, directory
        self.fired = {}
        self.rules = directory / "hasty"
        self.rules.mkdir()
        for path in RULES.glob("*.yml"):
            text = re.sub(r"^ +for: .*\n", "", path.read_text(), flags=re.MULTILINE)
            (self.rules / path.name).write_text(text.replace("idle_seconds > 300 <", "idle_seconds > 3 <"))
        assert "idle_seconds > 3 <" in (self.rules / "alerts.yml").read_text(), "the rule is not as expected"

    def daemon(self, settings=(), **options):
        """A daemon, in the scene's directory `data` if nothing else is said."""
        data = options.pop("data", self.directory / "data")
        return Daemon(self.program, data, self.directory / "daemon.log", ["scrub.rate=off", *settings], **options)

    @contextlib.contextmanager
    def watched(self, daemon):
        """A Prometheus that has seen the daemon well, twice."""
        with Prometheus(self.directory / "prometheus", [daemon.http], self.rules) as prometheus:
            seen = 'count_over_time(tilecatcher_build_info[1m]) >= 2'
            await_that("two scrapes", lambda: prometheus.query(seen))
            assert not prometheus.firing(), prometheus.firing()
            yield prometheus

    def expect(self, prometheus, *names, patience=PATIENCE):
        """These alerts fire."""
        began = time.monotonic()
        for name in names:
            try:
                await_that(f"{name} fires", lambda: name in prometheus.firing(), patience)
            except AssertionError:
                firing, page = prometheus.firing(), prometheus.query('{__name__=~"tilecatcher_.*", le=""} != 0')
                shown = [f"{sample['metric']}: {sample['value'][1]}" for sample in page]
                raise AssertionError("\n".join([f"{name} does not fire, but {firing}", *shown])) from None
            self.fired[name] = time.monotonic() - began

    def expect_quiet(self, prometheus, name):
        """This alert ends."""
        await_that(f"{name} ends", lambda: name not in prometheus.firing())


@contextlib.contextmanager
def small_disk(directory, megabytes):
    """A file system in memory that is soon full."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def under_strace(call, what):
    """What a daemon is run under so that a system call of it goes wrong."""
    return ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}"]


def disk_fills(scene):
    """A disk of 160 MB takes 2 MB/s until it takes no more."""
    with small_disk(scene.directory / "disk", 160) as disk, scene.daemon(data=disk / "data") as daemon:
        with scene.watched(daemon) as prometheus:
            load = ["--connections", "2", "--tile-size", "100kB", "--rate", "2MB/s", "--duration", "120s"]
            with daemon.replay(scene.directory / "replay.log", *load):
                scene.expect(prometheus, "TilecatcherDiskFilling", "TilecatcherDiskNearlyFull")
                scene.expect(prometheus, "TilecatcherCanNotStore", "TilecatcherPressureRed", patience=120)


def disk_crawls(scene):
    """Each sync takes 1.5 s: few tiles go through, and queues are full."""
    before = under_strace("fdatasync,fsync", "delay_enter=1500000")
    with scene.daemon(["storage.lane_queue=8"], before=before) as daemon, scene.watched(daemon) as prometheus:
        load = ["--mode", "closed", "--connections", "8", "--window", "8", "--tile-size", "100kB", "--duration", "60s"]
        with daemon.replay(scene.directory / "replay.log", *load) as replay:
            scene.expect(prometheus, "TilecatcherPressureRed", "TilecatcherSyncSlow")
            replay.end(signal.SIGKILL)


def disk_rots(scene):
    """A byte of a stored tile changes; later a whole segment is gone."""
    scrubbed = ["scrub.rate=unlimited", "scrub.interval=1s"]
    with scene.daemon(scrubbed) as daemon, scene.watched(daemon) as prometheus:
        start_acquisition(daemon, "7_8x8_logfile.ini", LOG)
        # More than a segment: what is behind the last record of an open one could be a write that was cut off.
        assert all(put_tile(daemon, 7, col, NOISE) == 200 for col in range(60))
        flip(scene.directory / "data/journal", NOISE[:64])
        scene.expect(prometheus, "TilecatcherScrubFinding", "TilecatcherCorruptRecord")
    shutil.rmtree(scene.directory / "prometheus")
    segments = sorted((scene.directory / "data/journal").iterdir())
    next(path for path in segments if NOISE[:64] in path.read_bytes()).unlink()
    with scene.daemon() as daemon:
        with Prometheus(scene.directory / "prometheus", [daemon.http], scene.rules) as prometheus:
            scene.expect(prometheus, "TilecatcherRecoveryCorrupt")


def flip(journal, content):
    """Changes a byte behind this content on the disk."""
    for path in journal.iterdir():
        at = path.read_bytes().find(content)
        if at >= 0:
            with path.open("r+b", buffering=0) as file:
                file.seek(at + 1000)
                byte = file.read(1)[0]
                file.seek(at + 1000)
                file.write(bytes([byte ^ 0x10]))
            subprocess.run(["sync", path], check=True)
            return
    raise AssertionError("the tile is in no segment")


def index_fails(scene):
    """The index' store can not write; the journal can."""
    before = under_strace("pwrite64", "error=EIO:when=40+")
    with scene.daemon(before=before) as daemon, scene.watched(daemon) as prometheus:
        load = ["--connections", "2", "--tile-size", "5kB", "--rate", "200/s", "--duration", "60s"]
        with daemon.replay(scene.directory / "replay.log", *load):
            scene.expect(prometheus, "TilecatcherIndexFailed")


def mirror_goes(scene):
    """The mirror's directory is away, and comes back."""
    mirror = scene.directory / "mirror"
    settings = ["storage.ack=replicated", f"mirror.data={mirror}", "mirror.retry=1s"]
    with scene.daemon(settings) as daemon, scene.watched(daemon) as prometheus:
        mirror.rename(scene.directory / "away")
        scene.expect(prometheus, "TilecatcherMirrorLost")
        (scene.directory / "away").rename(mirror)
        scene.expect_quiet(prometheus, "TilecatcherMirrorLost")


def senders_err(scene):
    """A wrong checksum; a microscope that stops; an acquisition that is ended too soon."""
    with scene.daemon() as daemon, scene.watched(daemon) as prometheus:
        start_acquisition(daemon, "7_8x8_logfile.ini", LOG)
        assert put_tile(daemon, 7, 0, NOISE) == 200
        assert put_tile(daemon, 7, 1, NOISE, checksum="00000000") == 400
        scene.expect(prometheus, "TilecatcherTilesRefused", "TilecatcherCaptureStalled")
        read(f"http://{daemon.http}/service/v1/end-acquisition/7", data=b"")
        scene.expect(prometheus, "TilecatcherEndedIncomplete")
        scene.expect_quiet(prometheus, "TilecatcherCaptureStalled")


def cameras_fail(scene):
    """A dozen images that show nothing; a dozen with too much light."""
    with scene.daemon() as daemon, scene.watched(daemon) as prometheus:
        start_acquisition(daemon, "7_8x8_logfile.ini", LOG)
        for col in range(12):
            assert put_tile(daemon, 7, col, tiff([128 + col % 2] * 64)) == 200
        scene.expect(prometheus, "TilecatcherCameraBlank")
        for col in range(12):
            assert put_tile(daemon, 7, col + 12, tiff([255] * 40 + [col] * 24)) == 200
        scene.expect(prometheus, "TilecatcherCameraSaturated")
        scene.expect_quiet(prometheus, "TilecatcherCameraBlank")


def tiff(row):
    """An image of 64 equal rows, 8 bits, in one strip: header, one directory, pixels."""
    width, pixels = len(row), bytes(row) * 64
    fields = [(256, 3, width), (257, 3, 64), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 64)]
    fields.append((279, 4, len(pixels)))
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in fields)
    directory = struct.pack("<H", len(fields)) + entries + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + directory


def access_breaks(scene):
    """The file of tokens is open to everybody; the disk of the audit log is full."""
    tokens = scene.directory / "tokens"
    add = [scene.program, "token", "add", "viewer", "--scope", "read", "--tokens", tokens]
    subprocess.run(add, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with small_disk(scene.directory / "disk", 1) as disk:
        settings = [f"access.tokens={tokens}", f"audit.file={disk / 'audit.jsonl'}"]
        with scene.daemon(settings) as daemon, scene.watched(daemon) as prometheus:
            tokens.chmod(0o644)
            scene.expect(prometheus, "TilecatcherTokensReloadFailed")
            tokens.chmod(0o600)
            scene.expect_quiet(prometheus, "TilecatcherTokensReloadFailed")
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
            for _ in range(50):
                # Not allowed without a token: a line each.
                put_tile(daemon, 7, 0, b"x")
            scene.expect(prometheus, "TilecatcherAuditLinesLost")


def process_dies(scene):
    """kill -9, and again after each start."""
    with scene.daemon() as daemon, scene.watched(daemon) as prometheus:
        port = daemon.http.rsplit(":", 1)[1]
        daemon.end(signal.SIGKILL)
        scene.expect(prometheus, "TilecatcherDown")
        for n in range(1, 4):
            with scene.daemon(http=port) as again:
                # Its time of start is in whole seconds.
                changed = f"changes(process_start_time_seconds[15m]) >= {n}"
                await_that("Prometheus has seen the start", lambda: prometheus.query(changed))
                if n < 3:
                    again.end(signal.SIGKILL)
                else:
                    scene.expect(prometheus, "TilecatcherRestartLoop")


FAULTS = [disk_fills, disk_crawls, disk_rots, index_fails, mirror_goes, senders_err, cameras_fail, access_breaks, process_dies]


def run(program, fault):
    """One fault; its alerts with the seconds that they took, and what went wrong."""
    with tempfile.TemporaryDirectory(prefix="tilecatcher-faults-") as directory:
        scene = Scene(program, pathlib.Path(directory))
        try:
            fault(scene)
        except (AssertionError, OSError, subprocess.CalledProcessError) as error:
            return scene.fired, f"{fault.__name__}: {error}"
    return scene.fired, None


def all_alerts():
    """The names of all alerts."""
    return set(re.findall(r"^ +- alert: (\w+)", (RULES / "alerts.yml").read_text(), re.MULTILINE))


def main():
    """Arguments, and the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/debug/tilecatcher")
    parser.add_argument("names", nargs="*", help="faults; all by default")
    args = parser.parse_args()
    chosen = [fault for fault in FAULTS if not args.names or fault.__name__ in args.names]
    seen, problems = set(), []
    for fault in chosen:
        fired, problem = run(args.program, fault)
        for name, seconds in fired.items():
            print(f"{fault.__name__}: {name} seen after {seconds:.1f} s", flush=True)
        seen |= set(fired)
        problems += [problem] if problem else []
    if not args.names:
        missing = all_alerts() - seen
        problems += [f"no fault has raised: {sorted(missing)}"] if missing else []
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(seen)} of {len(all_alerts())} alerts seen firing, {len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
