"""A daemon and a Prometheus that watches it, as processes of their own, with ports of the system's choice.

Owns starting, asking and ending them. Must never end a process that it did not start, nor leave one behind.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/rules"
# Bounds every single wait; what is watched happens within seconds.
PATIENCE = 60

# Small segments, so that a start and a full disk are quick.
SMALL = [
    "log.level=error",
    "storage.segment_size=4MiB",
    "storage.control_segment_size=1MiB",
    "storage.reserve=1MiB",
    "memory.buffers=64MiB",
    "capture.frame_max=8MiB",
    "index.cache=16MiB",
]


def await_that(what, holds, patience=PATIENCE):
    """Looks until `holds` gives something; returns that. Fails when the time is over."""
    until = time.monotonic() + patience
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.1)


def read(url, data=None):
    """The body of an answer."""
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=PATIENCE) as answer:
        return answer.read().decode()


class Process:
    """A process that ends with this."""

    def __init__(self, command, log):
        self.log = pathlib.Path(log)
        with self.log.open("w") as stderr:
            # What is set for the tests is no key of the daemon's.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("TILECATCHER_")}
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)

    def end(self, how=signal.SIGTERM):
        """Ends the process and waits for it."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Daemon(Process):
    """A running tilecatcher. `before` is what it is run under, such as strace; `http` chooses its port."""

    def __init__(self, program, data, log, settings=(), before=(), http=0):
        self.program = program
        command = [*before, program, "serve", "--data", data, "--capture", "127.0.0.1:0", "--http", f"127.0.0.1:{http}"]
        for setting in [*SMALL, *settings]:
            command += ["--set", setting]
        super().__init__([str(part) for part in command], log)
        line = self.process.stdout.readline()
        ports = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if not line.startswith("ready"):
            self.end()
            raise AssertionError(f"not ready: {self.log.read_text()}")
        self.capture, self.http = ports["capture"], ports["http"]

    def page(self):
        """What /metrics says."""
        return read(f"http://{self.http}/metrics")

    def replay(self, log, *arguments):
        """Starts a load."""
        command = [str(self.program), "replay", "--capture", self.capture, "--http", f"http://{self.http}", "--quiet"]
        return Process([*command, *arguments], log)


class Prometheus(Process):
    """A Prometheus with the rules of deploy/prometheus, scraping and evaluating each second."""

    def __init__(self, directory, targets, rules=RULES):
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copytree(rules, directory / "rules", dirs_exist_ok=True)
        config = directory / "prometheus.yml"
        config.write_text(self.configuration(targets))
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}"]
        super().__init__([*command, "--web.listen-address=127.0.0.1:0"], directory / "log")
        self.address = await_that("Prometheus listens", self.listens)
        await_that("Prometheus is ready", self.is_ready)

    @staticmethod
    def configuration(targets):
        """That of deploy/prometheus, with our daemons and a second for a quarter of a minute."""
        text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
        assert text.count("15s") == 2 and text.count('["127.0.0.1:5001"]') == 1, "prometheus.yml is not as expected"
        return text.replace("15s", "1s").replace('["127.0.0.1:5001"]', json.dumps(targets))

    def listens(self):
        """The address that the log tells."""
        if self.process.poll() is not None:
            raise AssertionError(f"Prometheus ended: {self.log.read_text()}")
        found = re.search(r'msg="Listening on" address=(\S+)', self.log.read_text())
        return found and found[1]

    def is_ready(self):
        """True when it answers queries."""
        try:
            return bool(read(f"http://{self.address}/-/ready"))
        except (urllib.error.URLError, OSError):
            return False

    def ask(self, path, **parameters):
        """The data of an answer of the API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        answer = json.loads(read(url))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression):
        """What an expression comes to now."""
        return self.ask("query", query=expression)["result"]

    def rules(self):
        """All rules that it has loaded."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def firing(self):
        """The names of the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}


def start_acquisition(daemon, name, log):
    """Starts an acquisition with this log."""
    boundary = "b7b7b7"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="acq-inilog"; filename="{name}"\r\n\r\n'
    body = f"{head}{log}\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(f"http://{daemon.http}/service/v1/start-acquisition", data=body)
    request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["uid"]


LOG = """[General]
Date = "03/04/2026     10:46:49 AM"
Sample name = "test"
[Camera Connections]
Acq1 = TRUE
Acq2 = TRUE
Acq3 = TRUE
Acq4 = TRUE
[Mosaic Settings]
Number of X steps = 4
Number of Y steps = 4
[TEM Settings]
Pixels per um = 250
"""


def put_tile(daemon, acq, col, content, checksum=None):
    """Sends a tile over HTTP; returns the status."""
    url = f"http://{daemon.http}/service/v1/capture-image-content/{acq}?tile-filename=col{col}_row0_cam0.tif"
    url += f"&checksum={checksum}" if checksum else ""
    request = urllib.request.Request(url, data=content, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
