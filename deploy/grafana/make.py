#!/usr/bin/env python3
"""Makes tilecatcher.json, the dashboard for Grafana (10 or later): a line or two for each panel, layout and defaults once.

    deploy/grafana/make.py            writes tilecatcher.json beside this file
    deploy/grafana/make.py --check    exit code 1 when that file is not what would be written

Owns what the dashboard shows. Must never name a data source: whoever imports it chooses one.
"""

import json
import pathlib
import sys

TARGET = pathlib.Path(__file__).with_name("tilecatcher.json")
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What every query is about: the daemons that were chosen, and where it matters the acquisitions.
OF = 'instance=~"$instance"'
ACQ = 'instance=~"$instance", acquisition=~"$acquisition"'
NAMED_CAMERAS = ACQ + ', camera!="other"'
WIDTH = 24


def panel(kind, title, about, queries, unit="short", width=8, height=7, **options):
    """A panel. `queries` are (query, legend); `options` are `thresholds`, `mappings`, `stack`, `minimum`, `maximum`."""
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "size": (width, height),
        "targets": [target(n, *query) for n, query in enumerate(queries)],
        "fieldConfig": {"defaults": field(kind, unit, options), "overrides": []},
        "options": view(kind),
    }


def target(n, query, legend):
    """One query of a panel; tables ask for this moment only."""
    return {
        "refId": chr(ord("A") + n),
        "datasource": SOURCE,
        "expr": query,
        "legendFormat": legend,
        "editorMode": "code",
        "range": True,
    }


def field(kind, unit, options):
    """How values are shown."""
    steps = [{"color": color, "value": value} for value, color in options.get("thresholds", [(None, "green")])]
    shown = {"unit": unit, "mappings": options.get("mappings", []), "thresholds": {"mode": "absolute", "steps": steps}}
    for name, key in (("minimum", "min"), ("maximum", "max")):
        if name in options:
            shown[key] = options[name]
    if kind == "timeseries":
        stack = {"mode": "normal" if options.get("stack") else "none", "group": "A"}
        shown["custom"] = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "stacking": stack}
        shown["color"] = {"mode": "palette-classic"}
    return shown


def view(kind):
    """What a kind of panel needs beside its values."""
    if kind == "timeseries":
        legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"], "showLegend": True}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
    if kind == "state-timeline":
        return {"mergeValues": True, "showValue": "auto", "legend": {"showLegend": False}}
    if kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": "s"}, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64}}
    return {}


def lines(title, about, *queries, **options):
    """Lines over time."""
    return panel("timeseries", title, about, queries, **{"minimum": 0, **options})


def stat(title, about, query, legend="{{instance}}", **options):
    """One figure."""
    return panel("stat", title, about, [(query, legend)], **{"width": 4, "height": 4, **options})


def buckets(title, about, metric):
    """How the times of a histogram are spread."""
    query = f"sum by (le) (rate({metric}_bucket{{{OF}}}[$__rate_interval]))"
    made = panel("heatmap", title, about, [(query, "{{le}}")], unit="s", width=12)
    made["targets"][0]["format"] = "heatmap"
    return made


def table(title, about, columns):
    """Acquisitions with a column for each (query, name)."""
    made = panel("table", title, about, [(query, "") for query, _ in columns], width=24, height=8)
    for one in made["targets"]:
        one.update({"instant": True, "range": False, "format": "table"})
    hidden = {name: True for name in ("Time", "__name__", "job")}
    named = {f"Value #{one['refId']}": name for one, (_, name) in zip(made["targets"], columns)}
    made["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": hidden, "renameByName": named}},
    ]
    return made


def rate(metric, of=OF):
    """Growth of a counter a second."""
    return f"rate({metric}{{{of}}}[$__rate_interval])"


def quantile(q, metric):
    """A quantile of a histogram, for each daemon."""
    return f"histogram_quantile({q}, sum by (le, instance) ({rate(metric + '_bucket')}))"


def value_names(**names):
    """Words instead of numbers: colour and text by value."""
    options = {value.lstrip("v"): {"text": text, "color": color} for value, (text, color) in names.items()}
    return [{"type": "value", "options": options}]


PRESSURE = value_names(v0=("GREEN", "green"), v1=("YELLOW", "yellow"), v2=("RED", "red"))
BAD_ABOVE_0 = [(None, "green"), (1, "red")]
YES_IS_BAD = value_names(v0=("no", "green"), v1=("yes", "red"))
NO_IS_BAD = value_names(v0=("no", "red"), v1=("yes", "green"))
STAGES = ["receive", "verify", "queue", "journal_write", "journal_sync", "index", "ack"]


def stages(query):
    """One query for each stage of a tile's way."""
    return [(query(f"tilecatcher_{stage}_seconds"), stage.removeprefix("journal_")) for stage in STAGES]


def mean(metric):
    """The mean of a histogram."""
    return f"sum ({rate(metric + '_sum')}) / sum ({rate(metric + '_count')})"


def all_of(metric):
    """A quantile over all daemons that were chosen."""
    return f"histogram_quantile(0.99, sum by (le) ({rate(metric + '_bucket')}))"


OVERVIEW = [
    stat("Answers", "1 while /metrics can be read.", f'up{{job="tilecatcher", {OF}}}', mappings=NO_IS_BAD),
    stat(
        "Pressure",
        "GREEN below 70 % full, YELLOW below 90 %, RED from there or when tiles are refused: the worst of queues, buffers, "
        "index and disk. It is what senders are told with every answer.",
        f'tilecatcher_pressure{{{OF}, of="system"}}',
        mappings=PRESSURE,
    ),
    stat("Tiles", "Tiles acknowledged a second.", f"sum by (instance) ({rate('tilecatcher_tiles_stored_total')})", unit="cps"),
    stat("Stored", "Bytes of tiles written to the journal a second.", rate("tilecatcher_stored_bytes_total"), unit="Bps"),
    stat(
        "Refused",
        "Requests refused within the range of the dashboard.",
        f"sum by (instance) (increase(tilecatcher_tiles_refused_total{{{OF}}}[$__range]))",
        thresholds=BAD_ABOVE_0,
    ),
    stat("Ack, 99 %", "99 of 100 tiles are acknowledged within this time.", quantile(0.99, "tilecatcher_ack_seconds"), unit="s"),
    stat("Disk free", "Free on the journal's file system.", f"tilecatcher_disk_free_bytes{{{OF}}}", unit="bytes"),
    stat(
        "Disk full in",
        "At the rate of the last five minutes; infinite while nothing is written.",
        f"tilecatcher_disk_full_seconds{{{OF}}}",
        unit="s",
        thresholds=[(None, "red"), (1800, "yellow"), (14400, "green")],
    ),
    stat("Open acquisitions", "Started and not ended.", f"sum by (instance) (tilecatcher_acquisition_open{{{OF}}})"),
    stat(
        "Damaged records",
        "Stored records that are known to be damaged. They are not served; all else is.",
        f"tilecatcher_corrupt_records{{{OF}}}",
        thresholds=BAD_ABOVE_0,
    ),
    stat("Running since", "When the process was started.", f'process_start_time_seconds{{job="tilecatcher", {OF}}} * 1000', unit="dateTimeFromNow"),
    stat("Version", "What is running.", f"tilecatcher_build_info{{{OF}}}", legend="{{version}} {{profile}}"),
]
OVERVIEW[-1]["options"]["textMode"] = "name"

CAPTURE = [
    lines(
        "Tiles by what they were",
        "new: first content of its place; duplicate: was there already; replaced: a new version.",
        (f"sum by (as) ({rate('tilecatcher_tiles_stored_total')})", "{{as}}"),
        unit="cps",
        stack=True,
    ),
    lines(
        "Bytes in, bytes stored, bytes written",
        "Read from capture connections; payloads that the journal took; whole records with headers and padding. Duplicates are "
        "received and not stored.",
        (f"sum ({rate('tilecatcher_received_bytes_total')})", "received"),
        (f"sum ({rate('tilecatcher_stored_bytes_total')})", "stored"),
        (f"sum ({rate('tilecatcher_journal_written_bytes_total')})", "written"),
        unit="Bps",
    ),
    lines(
        "Tiles a group commit",
        "How many tiles share a write and a sync, on the average and at the 99th percentile. It grows with the load.",
        (f"sum by (instance) ({rate('tilecatcher_batch_tiles_sum')}) / sum by (instance) ({rate('tilecatcher_batch_tiles_count')})", "mean {{instance}}"),
        (quantile(0.99, "tilecatcher_batch_tiles"), "99 % {{instance}}"),
    ),
    lines(
        "Bytes a group commit",
        "Payload bytes that share a write and a sync.",
        (f"sum by (instance) ({rate('tilecatcher_batch_bytes_sum')}) / sum by (instance) ({rate('tilecatcher_batch_bytes_count')})", "mean {{instance}}"),
        (quantile(0.99, "tilecatcher_batch_bytes"), "99 % {{instance}}"),
        unit="bytes",
    ),
    lines("Capture connections", "Open connections to the capture port.", (f"tilecatcher_connections{{{OF}}}", "{{instance}}")),
    lines(
        "Capture connections ended",
        "By reason. peer and stopping are as they should be; the others are in the table of metrics of deploy/README.md.",
        (f"sum by (reason) ({rate('tilecatcher_connections_closed_total')})", "{{reason}}"),
        unit="cps",
    ),
]

LATENCY = [
    lines(
        "Time to the acknowledgement",
        "From a tile's last byte to its answer handed to the socket, by quantile.",
        *[(quantile(q, "tilecatcher_ack_seconds"), f"{q * 100:g} % {{{{instance}}}}") for q in (0.5, 0.9, 0.99)],
        unit="s",
        width=12,
    ),
    lines(
        "99 % by stage",
        "receive: room for a tile to its last byte, the sender's and the network's part; verify: checksums; queue: waiting for a "
        "group commit; write, sync, index: of a group commit; ack: verify to answer, all together.",
        *stages(all_of),
        unit="s",
        width=12,
    ),
    lines("Mean by stage", "As before, the mean. Where the time goes.", *stages(mean), unit="s", width=12),
    buckets("Spread of the time to the acknowledgement", "Darker: more tiles took this long.", "tilecatcher_ack_seconds"),
    buckets("Spread of sync times", "Darker: more group commits took this long to sync. A second band far up is the disk's own doing.", "tilecatcher_journal_sync_seconds"),
    lines(
        "Slowest syncs",
        "99.9 % of the syncs, and of the writes.",
        (quantile(0.999, "tilecatcher_journal_sync_seconds"), "sync {{instance}}"),
        (quantile(0.999, "tilecatcher_journal_write_seconds"), "write {{instance}}"),
        unit="s",
        width=12,
    ),
]

QUEUES = [
    panel(
        "state-timeline",
        "Pressure",
        "What senders are told: all together, the index' queue, and what waits for the disk or for memory.",
        [(f"tilecatcher_pressure{{{OF}}}", "{{of}} {{instance}}")],
        width=24,
        height=5,
        mappings=PRESSURE,
    ),
    lines(
        "How full",
        "Shares of the limits: the fullest lane's queue, tile buffers. From 70 % YELLOW, from 90 % RED.",
        (f"tilecatcher_lane_queue_tiles{{{OF}}} / tilecatcher_lane_queue_limit_tiles{{{OF}}}", "lane queue {{instance}}"),
        (f"tilecatcher_buffer_bytes{{{OF}}} / tilecatcher_buffer_limit_bytes{{{OF}}}", "buffers {{instance}}"),
        unit="percentunit",
        maximum=1,
    ),
    lines("Tile buffers", "Memory that tiles hold between socket and disk.", (f"tilecatcher_buffer_bytes{{{OF}}}", "{{instance}}"), unit="bytes"),
    lines("Waiting for memory", "Connections that wait for a tile buffer: senders are held back.", (f"tilecatcher_buffer_waiters{{{OF}}}", "{{instance}}")),
    lines("Index behind", "Stored tiles that the index store does not hold yet. They are visible; at index.overlay_max lanes wait.", (f"tilecatcher_index_lag_tiles{{{OF}}}", "{{instance}}")),
    lines("Lane queue", "Tiles that wait in the fullest lane.", (f"tilecatcher_lane_queue_tiles{{{OF}}}", "{{instance}}")),
    lines("Opening the index", "How long the last start took to open or build the index.", (f"tilecatcher_index_open_seconds{{{OF}}}", "{{instance}}"), unit="s"),
]

DISK = [
    lines("Free space", "On the journal's file system. It goes down by whole segments.", (f"tilecatcher_disk_free_bytes{{{OF}}}", "{{instance}}"), unit="bytes"),
    lines("Full in", "Seconds until new segments no longer fit, at the rate of the last five minutes.", (f"tilecatcher_disk_full_seconds{{{OF}}}", "{{instance}}"), unit="s"),
    lines("Journal", "Bytes of segment files, as allocated.", (f"tilecatcher_journal_bytes{{{OF}}}", "{{instance}}"), unit="bytes"),
    lines("Segments", "Segment files, open ones and spares included.", (f"tilecatcher_journal_segments{{{OF}}}", "{{instance}}")),
    lines(
        "Written for each byte stored",
        "Whole records over payloads: small tiles cost more, for a record begins at a block of 4 KiB.",
        (f"sum by (instance) ({rate('tilecatcher_journal_written_bytes_total')}) / sum by (instance) ({rate('tilecatcher_stored_bytes_total')})", "{{instance}}"),
    ),
    stat("Not sealed", "Segments that could not be sealed since the start. Their records are safe; the next start scans them.", f"tilecatcher_journal_seal_failures{{{OF}}}", thresholds=BAD_ABOVE_0, width=8, height=7),
]

ACQUISITIONS = [
    table(
        "Acquisitions",
        "Open ones and those ended last: expected and missing tiles, seconds since the last tile, tiles a second.",
        [
            (f"tilecatcher_acquisition_open{{{ACQ}}}", "open"),
            (f"tilecatcher_acquisition_expected_tiles{{{ACQ}}}", "expected"),
            (f"tilecatcher_acquisition_missing_tiles{{{ACQ}}}", "missing"),
            (f"tilecatcher_acquisition_idle_seconds{{{ACQ}}}", "idle, s"),
            (f"sum by (instance, acquisition) ({rate('tilecatcher_acquisition_tiles_total', ACQ)})", "tiles/s"),
            (f"sum by (instance, acquisition) ({rate('tilecatcher_acquisition_bytes_total', ACQ)})", "bytes/s"),
        ],
    ),
    lines(
        "Tiles by acquisition",
        "Accepted tiles a second, duplicates included.",
        (f"sum by (acquisition) ({rate('tilecatcher_acquisition_tiles_total', ACQ)})", "{{acquisition}}"),
        unit="cps",
    ),
    lines(
        "Tiles by camera",
        "Accepted tiles a second. Cameras of one microscope should keep step.",
        (f"sum by (acquisition, camera) ({rate('tilecatcher_acquisition_tiles_total', ACQ)})", "{{acquisition}} camera {{camera}}"),
        unit="cps",
    ),
    lines(
        "Bytes by acquisition",
        "Bytes of accepted images a second.",
        (f"sum by (acquisition) ({rate('tilecatcher_acquisition_bytes_total', ACQ)})", "{{acquisition}}"),
        unit="Bps",
    ),
    lines(
        "Complete",
        "Share of the expected tiles that are stored.",
        (f"1 - tilecatcher_acquisition_missing_tiles{{{ACQ}}} / (tilecatcher_acquisition_expected_tiles{{{ACQ}}} > 0)", "{{acquisition}}"),
        unit="percentunit",
        maximum=1,
    ),
    lines("Missing", "Expected tiles that are not stored.", (f"tilecatcher_acquisition_missing_tiles{{{ACQ}}}", "{{acquisition}}")),
    lines("Since the last tile", "Of open acquisitions. An alert follows after five minutes, while tiles are missing.", (f"tilecatcher_acquisition_idle_seconds{{{ACQ}}}", "{{acquisition}}"), unit="s"),
    lines(
        "Tiles of a camera that fall behind",
        "Rate of the slowest camera of an acquisition over that of the fastest: 1 when all keep step.",
        (
            f"min by (acquisition) ({rate('tilecatcher_acquisition_tiles_total', NAMED_CAMERAS)}) / "
            f"max by (acquisition) ({rate('tilecatcher_acquisition_tiles_total', NAMED_CAMERAS)})",
            "{{acquisition}}",
        ),
        unit="percentunit",
        maximum=1,
    ),
    lines(
        "Ended with tiles missing",
        "Acquisitions, and the tiles that they missed.",
        (f"increase(tilecatcher_acquisitions_ended_incomplete_total{{{OF}}}[$__rate_interval])", "acquisitions {{instance}}"),
        (f"increase(tilecatcher_ended_missing_tiles_total{{{OF}}}[$__rate_interval])", "tiles {{instance}}"),
    ),
]

SENDERS = [
    lines(
        "Refused, by reason",
        "Requests refused a second. overloaded, no_space, mirror_lost and storage_failed are the daemon's; all others the sender's.",
        (f"sum by (reason) ({rate('tilecatcher_tiles_refused_total')})", "{{reason}}"),
        unit="cps",
    ),
    lines(
        "Refused, by acquisition",
        "Requests refused a second, by the acquisition that they name.",
        (f"sum by (acquisition) ({rate('tilecatcher_acquisition_refused_tiles_total', ACQ)})", "{{acquisition}}"),
        unit="cps",
    ),
    lines(
        "Beyond the grid, answers undelivered",
        "Tiles outside the grid that the log announces; answers whose connection was gone: those tiles are stored, and come again.",
        (f"sum ({rate('tilecatcher_tiles_beyond_grid_total')})", "beyond the grid"),
        (f"sum ({rate('tilecatcher_answers_undelivered_total')})", "answers undelivered"),
        unit="cps",
    ),
    lines("Encrypted connections by client", "By the name in the certificate.", (f"sum by (client) (tilecatcher_tls_connections{{{OF}}})", "{{client}}")),
    lines("TLS handshakes that failed", "On both ports, by reason.", (f"sum by (reason) ({rate('tilecatcher_tls_refused_total')})", "{{reason}}"), unit="cps"),
    lines("Capture connections begun", "A second. Many short ones: a sender connects anew for each tile.", (f"sum by (instance) ({rate('tilecatcher_connections_total')})", "{{instance}}"), unit="cps"),
]

QUALITY = [
    lines("Blank images in a row", "Of each camera: 0 again with the first image that shows something. An alert follows at 10.", (f"tilecatcher_camera_blank_run_tiles{{{OF}}}", "camera {{camera}}"), width=12),
    lines("Saturated images in a row", "Of each camera: 0 again with the first image that is not. An alert follows at 10.", (f"tilecatcher_camera_saturated_run_tiles{{{OF}}}", "camera {{camera}}"), width=12),
]

HTTP = [
    lines("Requests by status", "Requests to the HTTP port a second.", (f"sum by (status) ({rate('tilecatcher_http_requests_total')})", "{{status}}"), unit="cps"),
    lines("HTTP connections", "Open connections to the HTTP port.", (f"tilecatcher_http_connections{{{OF}}}", "{{instance}}")),
    lines("HTTP connections ended", "By reason; done and idle are as they should be.", (f"sum by (reason) ({rate('tilecatcher_http_connections_closed_total')})", "{{reason}}"), unit="cps"),
    lines("Requests not allowed", "By reason: many with bad_token or too_many may be somebody who guesses.", (f"sum by (reason) ({rate('tilecatcher_access_refused_total')})", "{{reason}}"), unit="cps"),
    stat("Audit lines lost", "Lines of the audit log that were not written, within the range of the dashboard.", f"increase(tilecatcher_audit_lines_lost_total{{{OF}}}[$__range])", thresholds=BAD_ABOVE_0, height=7),
    stat("Tokens unreadable", "yes: the file of tokens can not be read again, the old ones stay valid.", f"tilecatcher_tokens_reload_failed{{{OF}}}", mappings=YES_IS_BAD, height=7),
    lines("HTTP connections begun", "A second.", (f"sum by (instance) ({rate('tilecatcher_http_connections_total')})", "{{instance}}"), unit="cps"),
]

INTEGRITY = [
    lines("Scrub", "Share of the journal that the present pass has read.", (f"tilecatcher_scrub_progress{{{OF}}}", "{{instance}}"), unit="percentunit", maximum=1),
    lines("Scrub reads", "Bytes read again a second. It waits while senders press.", (rate("tilecatcher_scrub_bytes_total"), "{{instance}}"), unit="Bps"),
    stat("Scrub passes", "Passes over the whole journal since the start.", f"tilecatcher_scrub_passes_total{{{OF}}}", height=7),
    stat("Scrub findings", "Damaged records that the scrub was the first to find, since the start.", f"tilecatcher_scrub_findings_total{{{OF}}}", thresholds=BAD_ABOVE_0, height=7),
    stat("Damaged records", "Known to be damaged now.", f"tilecatcher_corrupt_records{{{OF}}}", thresholds=BAD_ABOVE_0),
    stat("Reads of damaged tiles", "Reads that met damage since the start.", f"tilecatcher_read_damaged_total{{{OF}}}", thresholds=BAD_ABOVE_0),
    stat("Torn places at the start", "Writes that were cut off; at the level durable never acknowledged.", f"tilecatcher_recovery_torn{{{OF}}}"),
    stat("Corrupt places at the start", "Stored data that could not be read at the last start.", f"tilecatcher_recovery_corrupt{{{OF}}}", thresholds=BAD_ABOVE_0),
    stat("Index failed", "yes: until a restart tiles are stored only as long as the overlay has room.", f"tilecatcher_index_store_failed{{{OF}}}", mappings=YES_IS_BAD),
]

MIRROR = [
    stat("Mirror in sync", "no without a mirror, too.", f"tilecatcher_mirror_in_sync{{{OF}}}", mappings=NO_IS_BAD, height=7),
    stat("Mirror wanted", "Whether mirror.data is set.", f"tilecatcher_mirror_configured{{{OF}}}", mappings=value_names(v0=("no", "text"), v1=("yes", "text")), height=7),
    stat(
        "Ack level",
        "What an acknowledgement promises now: without its mirror, replicated is durable.",
        f"tilecatcher_ack_level{{{OF}}}",
        mappings=value_names(v0=("received", "red"), v1=("written", "yellow"), v2=("durable", "green"), v3=("replicated", "green")),
        height=7,
    ),
    lines("Left to copy", "Segments that the mirror does not hold yet.", (f"tilecatcher_mirror_left_bytes{{{OF}}}", "{{instance}}"), unit="bytes", width=6),
    lines("Losses and repairs", "How often the mirror was lost, and what was written anew from the other side, since the start.", (f"tilecatcher_mirror_losses{{{OF}}}", "losses {{instance}}"), (f"tilecatcher_mirror_repairs{{{OF}}}", "repairs {{instance}}"), width=6),
]

JOB = f'job="tilecatcher", {OF}'
PROCESS = [
    lines("Processor", "CPUs in use.", (rate("process_cpu_seconds_total", JOB), "{{instance}}")),
    lines("Memory", "Resident: tile buffers, index cache and what else the process needs.", (f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"), unit="bytes"),
    lines("File descriptors", "Open, and the limit.", (f"process_open_fds{{{JOB}}}", "open {{instance}}"), (f"process_max_fds{{{JOB}}}", "limit {{instance}}")),
    lines("Threads", "Threads of the process.", (f"process_threads{{{JOB}}}", "{{instance}}")),
    lines("Restarts", "Starts within a quarter of an hour.", (f"changes(process_start_time_seconds{{{JOB}}}[15m])", "{{instance}}")),
    lines("Time of a scrape", "How long /metrics took.", (f"scrape_duration_seconds{{{JOB}}}", "{{instance}}"), unit="s"),
]

ROWS = [
    ("Overview", OVERVIEW),
    ("Capture", CAPTURE),
    ("Latency by stage", LATENCY),
    ("Queues and pressure", QUEUES),
    ("Disk", DISK),
    ("Acquisitions and cameras", ACQUISITIONS),
    ("Senders and refusals", SENDERS),
    ("Quality of the images", QUALITY),
    ("HTTP", HTTP),
    ("Scrub and integrity", INTEGRITY),
    ("Mirror", MIRROR),
    ("Process", PROCESS),
]


def choice(name, label, query):
    """A variable with the values of a label."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "sort": 1,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def laid_out():
    """All panels with their places: rows of 24 columns, filled from the left."""
    panels, top = [], 0
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": top}})
        top, left, height = top + 1, 0, 0
        for one in row:
            width, tall = one.pop("size")
            if left + width > WIDTH:
                top, left, height = top + height, 0, 0
            panels.append({**one, "gridPos": {"h": tall, "w": width, "x": left, "y": top}})
            left, height = left + width, max(height, tall)
        top += height
    return [{"id": n, **one} for n, one in enumerate(panels, 1)]


def dashboard():
    """The whole file."""
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}
    variables = [
        source,
        choice("instance", "Daemon", 'label_values(tilecatcher_build_info{job="tilecatcher"}, instance)'),
        choice("acquisition", "Acquisition", 'label_values(tilecatcher_acquisition_tiles_total{instance=~"$instance"}, acquisition)'),
    ]
    return {
        "title": "tilecatcher",
        "uid": "tilecatcher",
        "description": "One or more tilecatchers, as deploy/README.md describes their metrics.",
        "tags": ["microscopy"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": laid_out(),
    }


def main():
    """Writes the file, or compares."""
    text = json.dumps(dashboard(), indent=1) + "\n"
    if sys.argv[1:] == ["--check"]:
        if TARGET.read_text() != text:
            sys.exit(f"{TARGET} is not what make.py makes: run it")
    elif sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    else:
        TARGET.write_text(text)


if __name__ == "__main__":
    main()
