//! The table of keys, and the typed configuration that they fill.

use crate::access::{AccessOptions, OPENABLE_PATHS};
use crate::base::units::{ByteSize, Span};
use crate::catalog::{CatalogOptions, ConflictPolicy, LaneOptions, ScrubOptions, ScrubRate};
use crate::http::{ConnectionLimits, HttpOptions};
use crate::index::IndexOptions;
use crate::ingest::IngestOptions;
use crate::journal::{JournalOptions, MirrorOptions, WhenLost};
use crate::model::{AckLevel, Temca};
use crate::notify::NotifyOptions;
use crate::preview::PreviewOptions;
use crate::quality::QualityOptions;
use crate::telemetry::{LogFormat, LogLevel};
use crate::tls::ServerFiles;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Dotted name; in TOML, table and key.
    pub name: &'static str,
    /// Unit or kind of the value.
    pub unit: &'static str,
    /// Default.
    pub default: &'static str,
    /// What it means.
    pub about: &'static str,
    pub(super) put: fn(&mut Config, &str) -> Result<(), String>,
}

/// Everything that can be configured, read.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// The capture port.
    pub ingest: IngestOptions,
    /// What it is encrypted with, if `tls_address` says where.
    pub capture_tls: ServerFiles,
    /// The HTTP port.
    pub http: HttpOptions,
    /// What it is encrypted with; not at all when no file is named.
    pub http_tls: ServerFiles,
    /// How long a start waits for a data directory that is in use; `None`: as long as a stop takes on inherited listeners,
    /// else not at all.
    pub lock_wait: Option<Duration>,
    /// Who may do what.
    pub access: AccessOptions,
    /// Journal, index, lanes.
    pub catalog: CatalogOptions,
    /// The second directory; without one its `dir` is empty.
    pub mirror: MirrorOptions,
    /// The TEMCAs that the file describes, tables `[temca.N]`.
    pub temcas: Vec<Temca>,
    /// How the journal is read again in the background.
    pub scrub: ScrubOptions,
    /// How images of tiles and mosaics are made.
    pub preview: PreviewOptions,
    /// How tiles are judged by their pixels.
    pub quality: QualityOptions,
    /// Who is told what.
    pub notify: NotifyOptions,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The least severe events that are logged.
    pub log_level: LogLevel,
    /// Longest time that a stop may take.
    pub stop_time: Duration,
    /// Where each value comes from, by key.
    pub origins: BTreeMap<&'static str, String>,
}

/// All keys.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "capture.address",
        unit: "IP:PORT or off",
        default: "127.0.0.1:5002",
        about: "where senders connect; port 0 takes a free one",
        put: |config, text| read_unless("off", text, read_address).map(|address| config.ingest.address = address),
    },
    Key {
        name: "capture.reactors",
        unit: "threads",
        default: "auto",
        about: "threads that receive; auto: one for each 4 CPUs",
        put: |config, text| read_threads(text, 4).map(|n| config.ingest.reactors = n),
    },
    Key {
        name: "capture.hashers",
        unit: "threads",
        default: "auto",
        about: "threads that verify MD5, SHA-1 and SHA-256; auto: one for each 4 CPUs",
        put: |config, text| read_threads(text, 4).map(|n| config.ingest.hashers = n),
    },
    Key {
        name: "capture.frame_max",
        unit: "size",
        default: "64MiB",
        about: "longest frame that is accepted, at most 256MiB",
        put: |config, text| {
            config.ingest.frame_bytes_max = read_size(text)?;
            config.http.frame_bytes_max = config.ingest.frame_bytes_max;
            Ok(())
        },
    },
    Key {
        name: "capture.connections_max",
        unit: "count",
        default: "1024",
        about: "most connections; further ones are closed at once",
        put: |config, text| read(text).map(|n| config.ingest.connections_max = n),
    },
    Key {
        name: "capture.in_flight_max",
        unit: "tiles",
        default: "64",
        about: "most unanswered tiles on one connection; then it is not read",
        put: |config, text| read_at_least(text, 1).map(|n| config.ingest.in_flight_max = n),
    },
    Key {
        name: "capture.connection_memory_max",
        unit: "size",
        default: "256MiB",
        about: "most buffer memory that the unanswered tiles of one connection hold, the last one not counted",
        put: |config, text| read_size(text).map(|n| config.ingest.connection_bytes_max = n.max(1)),
    },
    Key {
        name: "capture.require_checksum",
        unit: "true or false",
        default: "true",
        about: "refuse tiles that carry no checksum",
        put: |config, text| read(text).map(|flag| config.ingest.require_checksum = flag),
    },
    Key {
        name: "capture.accept_unknown_acquisitions",
        unit: "true or false",
        default: "false",
        about: "accept tiles of acquisitions that were never started",
        put: |config, text| {
            config.ingest.accept_unknown = read(text)?;
            config.http.accept_unknown = config.ingest.accept_unknown;
            Ok(())
        },
    },
    Key {
        name: "capture.slow_rate",
        unit: "size a second",
        default: "64KiB",
        about: "a sender slower than this inside a tile is disconnected, after capture.slow_grace",
        put: |config, text| read_size(text).map(|n| config.ingest.slow_rate = n),
    },
    Key {
        name: "capture.slow_grace",
        unit: "time",
        default: "30s",
        about: "time that a tile may take at any rate; a sixth of it while others wait for memory",
        put: |config, text| read_time(text).map(|time| config.ingest.slow_grace = time),
    },
    Key {
        name: "capture.unread_max",
        unit: "time",
        default: "30s",
        about: "a sender that does not take its answers for so long is disconnected",
        put: |config, text| read_time(text).map(|time| config.ingest.unread_max = time),
    },
    Key {
        name: "capture.tls_address",
        unit: "IP:PORT",
        default: "",
        about: "where senders connect with TLS; port 0 takes a free one; empty: nowhere",
        put: |config, text| read_unless("", text, read_address).map(|value| config.ingest.tls_address = value),
    },
    Key {
        name: "capture.tls_certificate",
        unit: "path",
        default: "",
        about: "PEM file with the certificate of capture.tls_address, those between it and the CA behind it",
        put: |config, text| read_path(text, &mut config.capture_tls.certificate),
    },
    Key {
        name: "capture.tls_key",
        unit: "path",
        default: "",
        about: "PEM file with its key; others than owner and group may not read it",
        put: |config, text| read_path(text, &mut config.capture_tls.key),
    },
    Key {
        name: "capture.tls_client_ca",
        unit: "path",
        default: "",
        about: "PEM file with the CA whose certificates senders must have",
        put: |config, text| set(&mut config.capture_tls.client_ca, path_if_any(text)),
    },
    Key {
        name: "capture.connections_per_peer",
        unit: "count",
        default: "512",
        about: "most connections of one peer address; further ones are closed at once",
        put: |config, text| read(text).map(|n| config.ingest.connections_per_peer = n),
    },
    Key {
        name: "capture.peer_memory_max",
        unit: "size or auto",
        default: "auto",
        about: "most buffer memory that tiles of one peer address hold while they come in; auto: half of memory.buffers",
        put: |config, text| {
            config.ingest.peer_bytes_max = if text == "auto" { None } else { Some(read_size(text)?) };
            Ok(())
        },
    },
    Key {
        name: "http.address",
        unit: "IP:PORT",
        default: "127.0.0.1:5001",
        about: "HTTP port; port 0 takes a free one",
        put: |config, text| read_address(text).map(|address| config.http.address = address),
    },
    Key {
        name: "http.threads",
        unit: "threads",
        default: "2",
        about: "threads of the HTTP port",
        put: |config, text| read_at_least(text, 1).map(|n| config.http.threads = n),
    },
    Key {
        name: "http.public_url",
        unit: "URL",
        default: "",
        about: "base of the URLs that are given to clients, such as http://catcher:5001; empty: relative URLs",
        put: |config, text| {
            text.trim_end_matches('/').clone_into(&mut config.http.public_url);
            Ok(())
        },
    },
    Key {
        name: "http.listing_max",
        unit: "records",
        default: "100000",
        about: "most records of one listing; without a length there are 1000",
        put: |config, text| read_at_least(text, 1).map(|n| config.http.listing_max = n),
    },
    Key {
        name: "http.lease",
        unit: "time or off",
        default: "off",
        about: "tiles handed out by next-tile return to their earlier state after this time, unless the caller says otherwise",
        put: |config, text| {
            config.http.default_lease_s = match text {
                "off" => None,
                _ => Some(u32::try_from(read_time(text)?.as_secs().max(1)).map_err(|_| "at most 2^32 seconds")?),
            };
            Ok(())
        },
    },
    Key {
        name: "http.default_tile_size",
        unit: "pixels",
        default: "2560x2160",
        about: "width x height in tilespecs of tiles of which neither [temca] nor their header tells",
        put: |config, text| {
            let wrong = || format!("\"{text}\" is not like 2560x2160");
            let (width, height) = text.split_once('x').ok_or_else(wrong)?;
            config.http.default_tile_size = (width.parse().map_err(|_| wrong())?, height.parse().map_err(|_| wrong())?);
            Ok(())
        },
    },
    Key {
        name: "http.tls_certificate",
        unit: "path",
        default: "",
        about: "PEM file with the certificate of the HTTP port, which then speaks HTTPS only; empty: no TLS",
        put: |config, text| read_path(text, &mut config.http_tls.certificate),
    },
    Key {
        name: "http.tls_key",
        unit: "path",
        default: "",
        about: "PEM file with its key; others than owner and group may not read it",
        put: |config, text| read_path(text, &mut config.http_tls.key),
    },
    Key {
        name: "http.tls_client_ca",
        unit: "path",
        default: "",
        about: "PEM file with the CA whose certificates HTTP clients must have; empty: they need none",
        put: |config, text| set(&mut config.http_tls.client_ca, path_if_any(text)),
    },
    Key {
        name: "http.host_names",
        unit: "names",
        default: "",
        about: "names of this daemon with a dot in them, separated by commas; see access.networks in deploy/README.md",
        put: |config, text| set(&mut config.access.host_names, read_list(text)),
    },
    Key {
        name: "http.connections_max",
        unit: "count",
        default: "512",
        about: "most connections to the HTTP port; further ones are closed at once",
        put: |config, text| read(text).map(|n| config.http.connections.connections_max = n),
    },
    Key {
        name: "http.connections_per_peer",
        unit: "count",
        default: "256",
        about: "most connections to the HTTP port of one peer address",
        put: |config, text| read(text).map(|n| config.http.connections.connections_per_peer = n),
    },
    Key {
        name: "http.head_max",
        unit: "size",
        default: "16KiB",
        about: "longest head of a request, from 8KiB to 1MiB",
        put: |config, text| {
            let bytes = read_size_at_least(text, 8 << 10)?;
            config.http.connections.head_bytes_max =
                usize::try_from(bytes).ok().filter(|n| *n <= 1 << 20).ok_or("at most 1MiB")?;
            Ok(())
        },
    },
    Key {
        name: "http.head_time",
        unit: "time",
        default: "10s",
        about: "longest time from the first byte of a request's head to its last",
        put: |config, text| read_time(text).map(|time| config.http.connections.head_time = time),
    },
    Key {
        name: "http.idle_max",
        unit: "time",
        default: "60s",
        about: "a connection without a request is closed after this time, or after http.head_time if that is longer",
        put: |config, text| read_time(text).map(|time| config.http.connections.idle_max = time),
    },
    Key {
        name: "http.slow_rate",
        unit: "size a second",
        default: "16KiB",
        about: "a client that sends a body or takes an answer slower than this is disconnected, after http.slow_grace",
        put: |config, text| read_size(text).map(|n| config.http.connections.slow_rate = n),
    },
    Key {
        name: "http.slow_grace",
        unit: "time",
        default: "30s",
        about: "time that a body or an answer may take at any rate",
        put: |config, text| read_time(text).map(|time| config.http.connections.slow_grace = time),
    },
    Key {
        name: "access.networks",
        unit: "CIDRs",
        default: "",
        about: "networks whose senders are trusted without a token, separated by commas, such as 192.168.1.0/24,fd00::/8",
        put: |config, text| text.parse().map(|networks| config.access.networks = networks),
    },
    Key {
        name: "access.tokens",
        unit: "path",
        default: "",
        about: "file of tokens, made by `tilecatcher token add`; empty: none are asked for, and loopback may do everything",
        put: |config, text| set(&mut config.access.tokens, path_if_any(text)),
    },
    Key {
        name: "access.open_paths",
        unit: "paths",
        default: "/healthz,/readyz,/metrics",
        about: "paths that loopback and access.networks need no token for, separated by commas",
        put: |config, text| {
            config.access.open_paths = read_list(text);
            let unknown = config.access.open_paths.iter().find(|path| !OPENABLE_PATHS.contains(&path.as_str()));
            unknown.map_or(Ok(()), |path| Err(format!("\"{path}\": only {}", OPENABLE_PATHS.join(", "))))
        },
    },
    Key {
        name: "audit.file",
        unit: "path",
        default: "",
        about: "audit log, a line of JSON for each command, refusal and capture connection; empty: none",
        put: |config, text| set(&mut config.access.audit_file, path_if_any(text)),
    },
    Key {
        name: "storage.data",
        unit: "path",
        default: "./tilecatcher-data",
        about: "data directory: journal, index, quarantine",
        put: |config, text| read_path(text, &mut config.data),
    },
    Key {
        name: "storage.ack",
        unit: "level",
        default: "durable",
        about: "when a tile is acknowledged: replicated (synced here and in mirror.data), durable (synced), written (survives the process), received (in memory)",
        put: |config, text| text.parse().map(|ack| config.catalog.lanes.ack = ack),
    },
    Key {
        name: "storage.on_conflict",
        unit: "policy",
        default: "replace",
        about: "other content under a stored key: replace (new version, the old one is kept) or reject",
        put: |config, text| text.parse().map(|policy| config.catalog.lanes.conflict = policy),
    },
    Key {
        name: "storage.lanes",
        unit: "threads",
        default: "auto",
        about: "threads that write, each into its own segment; auto: one for each 4 CPUs",
        put: |config, text| {
            let lanes = read_threads(text, 4)?;
            config.catalog.lanes.lanes = u16::try_from(lanes).ok().filter(|n| *n <= 256).ok_or("at most 256")?;
            Ok(())
        },
    },
    Key {
        name: "storage.lane_queue",
        unit: "tiles",
        default: "512",
        about: "tiles that may wait for one lane; then its senders are not read",
        put: |config, text| read_at_least(text, 1).map(|n| config.catalog.lanes.queue_tiles = n),
    },
    Key {
        name: "storage.batch_max",
        unit: "size",
        default: "32MiB",
        about: "most bytes that share one sync",
        put: |config, text| read_size(text).map(|n| config.catalog.lanes.batch_bytes = n),
    },
    Key {
        name: "storage.prewrite",
        unit: "size",
        default: "0",
        about: "bytes of the open segment that are written with zeros ahead of time while nothing arrives; speeds up bursts, costs disk wear",
        put: |config, text| text.parse::<ByteSize>().map(|size| config.catalog.lanes.prewrite_bytes = size.0),
    },
    Key {
        name: "storage.segment_size",
        unit: "size",
        default: "1GiB",
        about: "space allocated at once for each lane; at least 1MiB",
        put: |config, text| read_size_at_least(text, 1 << 20).map(|n| config.catalog.journal.segment_bytes = n),
    },
    Key {
        name: "storage.control_segment_size",
        unit: "size",
        default: "16MiB",
        about: "space allocated at once for acquisitions' records; at least 1MiB",
        put: |config, text| read_size_at_least(text, 1 << 20).map(|n| config.catalog.journal.control_segment_bytes = n),
    },
    Key {
        name: "storage.reserve",
        unit: "size",
        default: "256MiB",
        about: "free disk space that tiles leave alone; below it they are refused with status 3",
        put: |config, text| text.parse::<ByteSize>().map(|size| config.catalog.journal.reserve_bytes = size.0),
    },
    Key {
        name: "storage.lock_wait",
        unit: "time or auto",
        default: "auto",
        about: "how long a start waits for a data directory that is in use; auto: 30s on listeners from a service manager, else 0s",
        put: |config, text| {
            config.lock_wait = if text == "auto" { None } else { Some(read_time(text)?) };
            Ok(())
        },
    },
    Key {
        name: "mirror.data",
        unit: "path",
        default: "",
        about: "second directory, on another disk, that gets every record, too; empty: none",
        put: |config, text| read_path(text, &mut config.mirror.dir),
    },
    Key {
        name: "mirror.when_lost",
        unit: "policy",
        default: "go_on",
        about: "without its mirror the daemon acknowledges tiles with one copy (go_on), or refuses them with status 3 (refuse)",
        put: |config, text| text.parse().map(|policy| config.mirror.when_lost = policy),
    },
    Key {
        name: "mirror.retry",
        unit: "time",
        default: "10s",
        about: "pause between two looks whether the mirror is still there, or back",
        put: |config, text| read_time(text).map(|time| config.mirror.retry = time.max(Duration::from_millis(1))),
    },
    Key {
        name: "mirror.rate",
        unit: "size a second",
        default: "100MiB",
        about: "most bytes a second that are read to bring a mirror up to date; 0 for no limit",
        put: |config, text| text.parse::<ByteSize>().map(|size| config.mirror.rate_bytes = size.0),
    },
    Key {
        name: "memory.buffers",
        unit: "size",
        default: "1GiB",
        about: "memory for tiles between the socket and the disk; never exceeded",
        put: |config, text| read_size(text).map(|n| config.catalog.memory_bytes = n),
    },
    Key {
        name: "index.cache",
        unit: "size",
        default: "1GiB",
        about: "memory for the index' cache; the rows of a tile take about 150 bytes of it",
        put: |config, text| read_size_at_least(text, 1 << 20).map(|n| config.catalog.index.cache_bytes = n),
    },
    Key {
        name: "index.overlay_max",
        unit: "tiles",
        default: "65536",
        about: "stored tiles, each version of one, that the index may lag behind; then senders are held back",
        put: |config, text| read_at_least(text, 1024).map(|n| config.catalog.index.overlay_tiles_max = n),
    },
    Key {
        name: "index.open_limit",
        unit: "time",
        default: "10s",
        about: "time for opening the index at the start, plus a second for each GiB; then it is rebuilt",
        put: |config, text| read_time(text).map(|time| config.catalog.index.open_limit = time),
    },
    Key {
        name: "scrub.rate",
        unit: "size a second, off or unlimited",
        default: "32MiB",
        about: "how fast the whole journal is read again and checked, beside everything else; 0 or off: not at all",
        put: |config, text| text.parse().map(|rate| config.scrub.rate = rate),
    },
    Key {
        name: "scrub.interval",
        unit: "time",
        default: "7d",
        about: "from the start of one pass over the journal to the start of the next; at once when a pass takes longer",
        put: |config, text| read_time(text).map(|time| config.scrub.interval = time),
    },
    Key {
        name: "preview.threads",
        unit: "threads",
        default: "1",
        about: "threads of low importance that make images of tiles and mosaics for viewers; 0: none are made",
        put: |config, text| read_at_least(text, 0).map(|n| config.preview.threads = n),
    },
    Key {
        name: "preview.cache",
        unit: "size",
        default: "1GiB",
        about: "disk space for thumbnails below cache/ in the data directory, which may be deleted at any time; at least 1MiB",
        put: |config, text| read_size_at_least(text, 1 << 20).map(|n| config.preview.cache_bytes = n),
    },
    Key {
        name: "quality.enabled",
        unit: "true or false",
        default: "true",
        about: "judge tiles by their pixels, in the background, behind their acknowledgement",
        put: |config, text| read(text).map(|is_on| config.quality.is_on = is_on),
    },
    Key {
        name: "quality.blank_below",
        unit: "share, 0 to 1",
        default: "0.02",
        about: "a tile is blank when its contrast, as share of the camera's range, is below this",
        put: |config, text| read_share(text).map(|share| config.quality.blank_below = share),
    },
    Key {
        name: "quality.saturated_above",
        unit: "share, 0 to 1",
        default: "0.2",
        about: "a tile is saturated when more than this share of its pixels is as dark or as bright as can be",
        put: |config, text| read_share(text).map(|share| config.quality.saturated_above = share),
    },
    Key {
        name: "quality.blurred_below",
        unit: "share, 0 to 1",
        default: "0.3",
        about: "a tile is blurred when its sharpness is below this share of what the camera's tiles of the acquisition usually have; 0: none is",
        put: |config, text| read_share(text).map(|share| config.quality.blurred_below = share),
    },
    Key {
        name: "notify.webhook_url",
        unit: "URL",
        default: "",
        about: "server that is told by HTTP POST what people should know; empty: none",
        put: |config, text| set(&mut config.notify.webhook().url, text.to_owned()),
    },
    Key {
        name: "notify.webhook_url_file",
        unit: "path",
        default: "",
        about: "file whose first line is the webhook's URL, in place of notify.webhook_url: where the URL is a secret",
        put: |config, text| set(&mut config.notify.webhook().url_file, path_if_any(text)),
    },
    Key {
        name: "notify.webhook_secret_file",
        unit: "path",
        default: "",
        about: "file whose first line signs what the webhook gets (HMAC-SHA256); empty: unsigned",
        put: |config, text| set(&mut config.notify.webhook().secret_file, path_if_any(text)),
    },
    Key {
        name: "notify.mail_server",
        unit: "HOST or HOST:PORT",
        default: "",
        about: "SMTP server for messages by e-mail; empty: none",
        put: |config, text| set(&mut config.notify.mail().server, text.to_owned()),
    },
    Key {
        name: "notify.mail_security",
        unit: "starttls, tls or none",
        default: "starttls",
        about: "how the connection to the SMTP server is encrypted: starttls (port 587), tls from the first byte (465), none (25)",
        put: |config, text| text.parse().map(|security| config.notify.mail().security = security),
    },
    Key {
        name: "notify.mail_user",
        unit: "name",
        default: "",
        about: "who logs in to the SMTP server; empty: nobody",
        put: |config, text| set(&mut config.notify.mail().user, text.to_owned()),
    },
    Key {
        name: "notify.mail_password_file",
        unit: "path",
        default: "",
        about: "file whose first line is that one's password",
        put: |config, text| set(&mut config.notify.mail().password_file, path_if_any(text)),
    },
    Key {
        name: "notify.mail_from",
        unit: "e-mail address",
        default: "",
        about: "who messages come from",
        put: |config, text| set(&mut config.notify.mail().from, text.to_owned()),
    },
    Key {
        name: "notify.mail_to",
        unit: "e-mail addresses",
        default: "",
        about: "who gets them, separated by commas",
        put: |config, text| set(&mut config.notify.mail().to, read_list(text)),
    },
    Key {
        name: "notify.ca",
        unit: "path",
        default: "/etc/ssl/certs/ca-certificates.crt",
        about: "PEM file with the CAs that webhook and SMTP server must have their certificates from",
        put: |config, text| read_path(text, &mut config.notify.ca),
    },
    Key {
        name: "notify.events",
        unit: "names",
        default: "acquisition_complete,acquisition_incomplete,capture_stalled,disk_low,disk_full,damage,storage_failed,index_failed,panicked,mirror_lost",
        about: "what is told, separated by commas",
        put: |config, text| {
            config.notify.events = read_list(text).iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Key {
        name: "notify.disk_low",
        unit: "size",
        default: "100GiB",
        about: "free disk space below which somebody is told; 0: never",
        put: |config, text| text.parse::<ByteSize>().map(|size| config.notify.disk_low_bytes = size.0),
    },
    Key {
        name: "notify.stalled_after",
        unit: "time",
        default: "10min",
        about: "somebody is told when no tile has come for so long in an open acquisition that misses some; 0s: never",
        put: |config, text| read_time(text).map(|time| config.notify.stalled_after = time),
    },
    Key {
        name: "notify.repeat",
        unit: "time",
        default: "6h",
        about: "shortest time between two messages of one kind about one thing, at least 1min; what lasts is told again after it",
        put: |config, text| read_time_at_least(text, 60).map(|time| config.notify.repeat = time),
    },
    Key {
        name: "log.format",
        unit: "format",
        default: "text",
        about: "text or json, on stderr",
        put: |config, text| text.parse().map(|format| config.log_format = format),
    },
    Key {
        name: "log.level",
        unit: "level",
        default: "info",
        about: "off, error, warn, info, debug or trace",
        put: |config, text| text.parse().map(|level| config.log_level = level),
    },
    Key {
        name: "stop.time",
        unit: "time",
        default: "10s",
        about: "longest time that a stop may take; half of it for tiles that are on their way",
        put: |config, text| {
            config.stop_time = read_time(text)?;
            config.ingest.stop_time = config.stop_time / 2;
            Ok(())
        },
    },
];

impl Config {
    /// Relations between keys.
    pub(super) fn check(&self) -> Result<(), String> {
        let hard = crate::base::limits::FRAME_BYTES_HARD_MAX;
        if self.ingest.frame_bytes_max > hard {
            return Err(format!("capture.frame_max: at most {}", ByteSize(hard as u64)));
        }
        let needed = crate::catalog::FrameBuffer::buffer_bytes(self.ingest.frame_bytes_max);
        if self.catalog.memory_bytes < needed {
            return Err(format!(
                "memory.buffers: {} hold no tile of capture.frame_max = {}: raise the one or lower the other",
                ByteSize(self.catalog.memory_bytes as u64),
                ByteSize(self.ingest.frame_bytes_max as u64),
            ));
        }
        self.check_mirror()?;
        self.check_tls()
    }

    fn check_mirror(&self) -> Result<(), String> {
        let (data, mirror) = (&self.data, &self.mirror.dir);
        if mirror.as_os_str().is_empty() {
            return match self.catalog.lanes.ack {
                AckLevel::Replicated => {
                    Err("storage.ack = replicated: name a second directory with mirror.data".into())
                }
                _ => Ok(()),
            };
        }
        let absolute = |path: &PathBuf| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        match (absolute(data), absolute(mirror)) {
            (Ok(data), Ok(mirror)) if data.starts_with(&mirror) || mirror.starts_with(&data) => {
                Err("mirror.data: must lie outside storage.data, and that outside it; best on another disk".into())
            }
            _ => Ok(()),
        }
    }

    /// Files that are named and not used, or used and not named, are a mistake.
    fn check_tls(&self) -> Result<(), String> {
        let (capture, http) = (&self.capture_tls, &self.http_tls);
        let is_set = |path: &PathBuf| !path.as_os_str().is_empty();
        let of_capture = [is_set(&capture.certificate), is_set(&capture.key), capture.client_ca.is_some()];
        match (self.ingest.tls_address, of_capture) {
            (Some(_), [true, true, true]) | (None, [false, false, false]) => {}
            (Some(_), _) => {
                return Err(
                    "capture.tls_address: set capture.tls_certificate, tls_key and tls_client_ca, too".to_owned()
                );
            }
            (None, _) => return Err("capture.tls_*: set capture.tls_address, or none of them".to_owned()),
        }
        match ([is_set(&http.certificate), is_set(&http.key)], http.client_ca.is_some()) {
            ([true, true], _) | ([false, false], false) => Ok(()),
            _ => Err("http.tls_*: set http.tls_certificate and http.tls_key, or none of them".to_owned()),
        }
    }
}

impl Default for Config {
    /// Placeholders that every key's `put` overwrites.
    fn default() -> Self {
        let nowhere = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
        Self {
            data: PathBuf::new(),
            ingest: IngestOptions {
                address: None,
                tls_address: None,
                reactors: 1,
                hashers: 1,
                frame_bytes_max: 0,
                connections_max: 0,
                connections_per_peer: 0,
                peer_bytes_max: None,
                in_flight_max: 1,
                connection_bytes_max: 0,
                require_checksum: true,
                accept_unknown: false,
                slow_rate: 0,
                slow_grace: Duration::ZERO,
                unread_max: Duration::ZERO,
                stop_time: Duration::ZERO,
            },
            capture_tls: ServerFiles::default(),
            http_tls: ServerFiles::default(),
            http: HttpOptions {
                address: nowhere,
                threads: 1,
                public_url: String::new(),
                listing_max: 1,
                default_lease_s: None,
                default_tile_size: (1, 1),
                frame_bytes_max: 0,
                accept_unknown: false,
                fixed_temcas: std::collections::BTreeSet::new(),
                connections: ConnectionLimits {
                    connections_max: 0,
                    connections_per_peer: 0,
                    head_bytes_max: 0,
                    head_time: Duration::ZERO,
                    idle_max: Duration::ZERO,
                    slow_rate: 0,
                    slow_grace: Duration::ZERO,
                },
            },
            access: AccessOptions::default(),
            temcas: Vec::new(),
            lock_wait: None,
            mirror: MirrorOptions {
                dir: PathBuf::new(),
                when_lost: WhenLost::GoOn,
                retry: Duration::ZERO,
                rate_bytes: 0,
                lock: true,
            },
            catalog: CatalogOptions {
                journal: JournalOptions::default(),
                index: IndexOptions::default(),
                lanes: LaneOptions {
                    lanes: 1,
                    queue_tiles: 1,
                    batch_bytes: 0,
                    prewrite_bytes: 0,
                    ack: AckLevel::Durable,
                    conflict: ConflictPolicy::Replace,
                },
                memory_bytes: 0,
                lock_wait: Duration::ZERO,
            },
            scrub: ScrubOptions { rate: ScrubRate::Off, interval: Duration::ZERO },
            preview: PreviewOptions { threads: 0, cache_bytes: 0 },
            quality: QualityOptions { is_on: false, blank_below: 0.0, saturated_above: 0.0, blurred_below: 0.0 },
            notify: NotifyOptions::default(),
            log_format: LogFormat::Text,
            log_level: "info".parse().expect("a known level"),
            stop_time: Duration::ZERO,
            origins: BTreeMap::new(),
        }
    }
}

fn read<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| format!("\"{text}\": {error}"))
}

/// What stands between commas.
fn read_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn path_if_any(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn read_at_least(text: &str, least: usize) -> Result<usize, String> {
    let n: usize = read(text)?;
    if n < least { Err(format!("\"{text}\": at least {least}")) } else { Ok(n) }
}

fn read_share(text: &str) -> Result<f64, String> {
    let share: f64 = read(text)?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(format!("\"{text}\": 0 to 1")) }
}

fn read_size(text: &str) -> Result<usize, String> {
    text.parse().map(ByteSize::bytes)
}

fn read_size_at_least(text: &str, least: u64) -> Result<u64, String> {
    let size: ByteSize = text.parse()?;
    if size.0 < least { Err(format!("\"{text}\": at least {}", ByteSize(least))) } else { Ok(size.0) }
}

fn read_time(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(|span| span.0)
}

fn read_time_at_least(text: &str, least_s: u64) -> Result<Duration, String> {
    Span::at_least(text, Duration::from_secs(least_s)).map(|span| span.0)
}

/// A number of threads; `auto`: one for each `share` CPUs, at least one.
fn read_threads(text: &str, share: usize) -> Result<usize, String> {
    if text == "auto" {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        return Ok((cpus / share).max(1));
    }
    read_at_least(text, 1)
}

/// `None` where the text is the word for nothing.
fn read_unless<T>(nothing: &str, text: &str, read: fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text == nothing { Ok(None) } else { read(text).map(Some) }
}

fn read_path(text: &str, into: &mut PathBuf) -> Result<(), String> {
    set(into, PathBuf::from(text))
}

/// For what any text will do.
fn set<T>(into: &mut T, value: T) -> Result<(), String> {
    *into = value;
    Ok(())
}

fn read_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("\"{text}\" is no address: IP:PORT, such as 127.0.0.1:5002");
    text.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)
}
