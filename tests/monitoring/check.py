#!/usr/bin/env python3
"""Every query of the dashboard and every rule, evaluated by a real Prometheus over a real daemon under load.

    tests/monitoring/check.py [--program target/debug/tilecatcher] [--required]

Each must give a number; no alert may fire, for nothing is wrong. Also: each alert has a
test of promtool, its runbook is a section of deploy/README.md, and that names the alert. Takes half a minute. Without
Prometheus it says so and passes, unless --required.
"""

import argparse
import json
import math
import pathlib
import re
import shutil
import sys
import tempfile

from rig import ROOT, Daemon, Prometheus, await_that

# What Grafana puts in, and what stands for it here.
VARIABLES = {"$__rate_interval": "15s", "$__range": "1m", "$instance": ".*", "$acquisition": ".*"}
# Three microscopes: number of the acquisition, and what it sends.
LOADS = [
    ("11", ["--profile", "temca2", "--rate", "0.2x"]),
    ("12", ["--profile", "piteam", "--rate", "0.1x", "--checksum", "md5"]),
    ("13", ["--connections", "2", "--rate", "20/s"]),
]
# A metric or a recorded one, with its matchers.
SERIES = re.compile(r"(?:[a-z]\w*:\w+:\w+|\b(?:tilecatcher|process)_\w+|\bup\b)(?:{[^}]*})?")


def panels():
    """Every query of the dashboard, with its panel's title."""
    board = json.loads((ROOT / "deploy/grafana/tilecatcher.json").read_text())
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["description"].strip(), f"{panel['title']} has no description"
            for target in panel["targets"]:
                assert target["datasource"]["uid"] == "${datasource}", panel["title"]
                yield panel["title"], target["expr"]


def filled_in(expression):
    """A query as Grafana would send it."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def has_number(result):
    """True where a value is a number, or infinite."""
    return any(not math.isnan(float(sample["value"][1])) for sample in result)


class Check:
    """Counts what was asked and collects what is wrong."""

    def __init__(self, prometheus):
        self.prometheus, self.problems, self.asked = prometheus, [], 0

    def expect_data(self, what, expression):
        """The expression gives a number."""
        self.asked += 1
        if not has_number(self.prometheus.query(expression)):
            self.problems.append(f"{what}: no data: {expression}")

    def dashboard(self):
        """Every panel and every variable."""
        for title, expression in panels():
            self.expect_data(f"panel {title}", filled_in(expression))
        board = json.loads((ROOT / "deploy/grafana/tilecatcher.json").read_text())
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
                values = self.prometheus.ask(f"label/{label}/values", **{"match[]": filled_in(selector)})
                self.asked += 1
                if not values:
                    self.problems.append(f"variable {variable['name']} has no value")

    def rules(self):
        """Recorded series are there; alerts look at series that are there, and none fires."""
        for rule in self.prometheus.rules():
            if rule["health"] != "ok" or rule.get("lastError"):
                self.problems.append(f"rule {rule['name']}: {rule['health']} {rule.get('lastError')}")
            if rule["type"] == "recording":
                self.expect_data(f"rule {rule['name']}", rule["name"])
                continue
            for series in sorted(set(SERIES.findall(rule["query"]))):
                self.expect_data(f"alert {rule['name']}", series)
            self.alert(rule)
        firing = self.prometheus.firing()
        if firing:
            self.problems.append(f"fires though nothing is wrong: {sorted(firing)}")

    def alert(self, rule):
        """What an alert says, where it leads, and that promtool knows it."""
        readme = (ROOT / "deploy/README.md").read_text()
        headings = re.findall(r"^#+ (.*)$", readme, re.MULTILINE)
        anchors = {"-".join(re.sub(r"[^\w\s-]", "", heading.lower()).split()) for heading in headings}
        notes, name = rule["annotations"], rule["name"]
        if rule["labels"].get("severity") not in ("critical", "warning") or not notes.get("summary"):
            self.problems.append(f"alert {name}: no severity or summary")
        file, _, anchor = notes.get("runbook", "").partition("#")
        if file != "deploy/README.md" or anchor not in anchors or not notes.get("description"):
            self.problems.append(f"alert {name}: no description, or its runbook is no section: {notes.get('runbook')}")
        if f"`{name}`" not in readme:
            self.problems.append(f"alert {name} is not in deploy/README.md")
        if f'alertname="{name}"' not in (ROOT / "deploy/prometheus/tests/alerts.yml").read_text():
            self.problems.append(f"alert {name} has no test in deploy/prometheus/tests")


def judge(prometheus):
    """One look at everything."""
    check = Check(prometheus)
    check.dashboard()
    check.rules()
    return check


def run(program, directory):
    """A daemon, three loads, a Prometheus; looks until all is there, or two minutes."""
    with Daemon(program, directory / "data", directory / "daemon.log", ["scrub.rate=unlimited", "scrub.interval=2s"]) as daemon:
        common = ["--tile-size", "20kB", "--duration", "10min", "--content", "tiff", "--keep"]
        loads = [daemon.replay(directory / f"{acq}.log", "--acq", acq, *load, *common) for acq, load in LOADS]
        try:
            with Prometheus(directory / "prometheus", [daemon.http]) as prometheus:
                looks = []

                def all_there():
                    looks.append(judge(prometheus))
                    return not looks[-1].problems

                try:
                    await_that("all queries give data", all_there, 120)
                except AssertionError:
                    pass
                return looks[-1]
        finally:
            for load in loads:
                load.end()


def main():
    """Arguments, and the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/debug/tilecatcher")
    parser.add_argument("--required", action="store_true", help="fail without Prometheus")
    args = parser.parse_args()
    if not shutil.which("prometheus"):
        print("passed over: there is no prometheus (apt-get install prometheus)")
        sys.exit(1 if args.required else 0)
    with tempfile.TemporaryDirectory(prefix="tilecatcher-monitoring-") as directory:
        check = run(args.program, pathlib.Path(directory))
    for problem in check.problems:
        print(problem, file=sys.stderr)
    print(f"{check.asked} queries asked, {len(check.problems)} problems")
    sys.exit(1 if check.problems else 0)


if __name__ == "__main__":
    main()
