//! What the attributes of the routes can not say of them: bounds and patterns of parameters, which mean the same
//! wherever their name occurs; multipart bodies; headers; contents of several types.

use crate::model::STATE_NAME_BYTES_MAX;
use serde_json::{Map, Value, json};

const DAY: &str = "^[0-9]{8}([0-9]{2}){0,3}$";
const INSTANT: &str = r"^[0-9]{14}(\.[0-9]{3}([0-9]{3})?)?$";
const HEX_CHECKSUM: &str = "^([0-9a-fA-F]{8}|[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64})$";
const TILE_NAME: &str =
    r"^(.*[/\\])?(col[0-9]+_row[0-9]+_cam[0-9]+|Dump_cam[0-9]_frame[0-9]+_col[0-9]+_row[0-9]+)\.tif$";
const NO_CONTROLS: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// Bytes of any kind: OpenAPI 3.1 gives them no schema.
const BYTES: fn() -> Value = || json!({});
/// Types that a tile's first bytes can tell.
const IMAGE_TYPES: [&str; 4] = ["image/tiff", "image/png", "image/jpeg", "application/octet-stream"];
/// Types that a file's name can tell; JSON last, for its content is not looked at.
const FILE_TYPES: [&str; 5] = ["application/octet-stream", "text/csv", "text/plain", "image/png", "application/json"];

fn unsigned(bits: u32) -> Value {
    json!({ "type": "integer", "format": format!("uint{bits}"), "minimum": 0, "maximum": u64::MAX >> (64 - bits) })
}

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

/// Schema and meaning of a parameter of this name.
pub(super) fn parameter(path: &str, name: &str) -> Option<(Value, &'static str)> {
    Some(match name {
        "acqid" => (unsigned(64), "An acquisition's number"),
        "tileid" => (unsigned(64), "A tile's identifier"),
        "id" if path.contains("/temca/") => {
            (json!({ "type": "integer", "format": "uint32", "minimum": 1, "maximum": u32::MAX }), "A TEMCA's number")
        }
        "id" => (unsigned(64), "A file's identifier, where several have one name"),
        "sender" => (unsigned(64), "A sender's number, as the list of senders has it"),
        "confirm" => (unsigned(64), "The acquisition's number once more"),
        "col" => (unsigned(32), "Column in the mosaic, from 0"),
        "row" => (unsigned(32), "Row in the mosaic, from 0"),
        "frame" => (
            json!({ "type": "integer", "format": "int32", "minimum": -1, "default": -1 }),
            "A drift frame's number; -1: the stable tile",
        ),
        "acquisition" => (unsigned(64), "The acquisition whose tiles are told; of none when absent"),
        "for" => (
            json!({ "type": "integer", "minimum": 1, "maximum": 86_400 }),
            "Seconds after which the stream ends; it does not by itself when absent",
        ),
        "camera" => (json!({ "type": "integer", "format": "int32" }), "Camera in the array, from 0"),
        "version" => (unsigned(32), "A version of the content, from 1; the current one when absent"),
        "offset" => (unsigned(64), "Records passed over, 0 when absent"),
        "length" => (unsigned(64), "Most records, 1000 when absent; above the configured maximum it is that"),
        "section" => (json!({ "type": "integer", "format": "int64", "minimum": -1 }), "Nominal section; -1: any"),
        "ntiles" => (
            json!({ "type": "integer", "format": "uint64", "minimum": 1, "maximum": u64::MAX, "default": 1 }),
            "Most tiles; above 1000 it is 1000",
        ),
        "lease" => (
            json!({ "type": "integer", "minimum": 0, "maximum": 2_592_000 }),
            "Seconds after which tiles return to oldState; 0: never; as configured when absent",
        ),
        "frame-type" => (
            json!({ "type": "string", "enum": ["stable", "drift", "all"], "default": "stable" }),
            "Stable tiles, drift frames, or both",
        ),
        "checksum-algorithm" => (
            json!({ "type": "string", "enum": ["MD5", "SHA1", "CRC32", "SHA256"], "default": "MD5" }),
            "What to compute, in any case of letters",
        ),
        "acq-from" | "has-acq-from" => (text(DAY), "yyyyMMdd[HH[mm[ss]]], local time, inclusive"),
        "acq-to" | "has-acq-to" => (text(DAY), "yyyyMMdd[HH[mm[ss]]], local time, exclusive"),
        "tile-from" => (text(INSTANT), "yyyyMMddHHmmss[.SSS[SSS]], local time, inclusive"),
        "tile-to" => (text(INSTANT), "yyyyMMddHHmmss[.SSS[SSS]], local time, exclusive"),
        "checksum" => (text(HEX_CHECKSUM), "Of the content, hex: CRC-32, MD5, SHA-1 or SHA-256 by its length"),
        "tile-filename" => (text(TILE_NAME), "Name of the tile, such as col0001_row0002_cam3.tif; not for multipart"),
        "cursor" => (text("^[0-9a-fA-F]{1,16}$"), "next_cursor of the page before"),
        "key" => (text("^[0-9]{1,20}-[0-9]{1,10}$"), "Key of a content, such as 17-1"),
        "quality" => (
            json!({ "type": "string",
                "enum": ["good", "flagged", "unjudged", "blank", "saturated", "blurred", "undecodable"] }),
            "Judged and without a flag, with any, not judged, or with this flag",
        ),
        "level" => (
            json!({ "type": "integer", "minimum": 0, "maximum": crate::preview::LEVEL_MAX }),
            "A thumbnail shows 2^level x 2^level places",
        ),
        "x" => (unsigned(32), "Column of thumbnails, from 0: the first column of places is x * 2^level"),
        "y" => (unsigned(32), "Row of thumbnails, from 0: the first row of places is y * 2^level"),
        "size" => (
            json!({ "type": "integer", "minimum": 1, "maximum": crate::pixels::SIDE_MAX }),
            "Longest side of the image, pixels; it is never enlarged",
        ),
        "region" => {
            (text("^[0-9]{1,5},[0-9]{1,5},[1-9][0-9]{0,4},[1-9][0-9]{0,4}$"), "x,y,width,height in the tile, pixels")
        }
        "contrast" => (
            text("^(auto|none|[0-9]{1,5}-[0-9]{1,5})$"),
            "auto, none, or the grey values that become black and white, such as 20-180; when absent 8 bits are shown as \
             they are, 16 bits as auto",
        ),
        "include-all" => (json!({ "type": "boolean", "default": false }), "Also ROI tiles whose content has not come"),
        "summary" => (json!({ "type": "boolean", "default": false }), "Only number of tiles and root, as JSON"),
        "flat" => (json!({ "type": "boolean", "default": false }), "Answer with length and tiles only"),
        "oldState" => (state("READY"), "The state that tiles leave"),
        "newState" => (state("IN_PROGRESS"), "The state that they get"),
        "tile-state" | "exists-tile-in-state" => (json!({ "type": "string" }), "Some ROI tile is in this state"),
        "all-tiles-in-state" => (json!({ "type": "string" }), "There are ROI tiles, and all are in this state"),
        "sample" => (json!({ "type": "string" }), "The sample's name"),
        "project" => (json!({ "type": "string" }), "The project's name"),
        "owner" => (json!({ "type": "string" }), "The project's owner"),
        "stack" => (json!({ "type": "string" }), "The stack's name"),
        "mosaic-type" => (json!({ "type": "string" }), "The type of mosaic"),
        "name" => (json!({ "type": "string", "minLength": 1 }), "The name"),
        _ => return None,
    })
}

fn state(default: &str) -> Value {
    json!({ "type": "string", "pattern": NO_CONTROLS, "maxLength": STATE_NAME_BYTES_MAX, "default": default })
}

/// Headers of a request for a content.
pub(super) fn content_parameters() -> [Value; 3] {
    let header = |name: &str, meaning: &str| {
        json!({ "name": name, "in": "header", "required": false, "description": meaning,
            "schema": { "type": "string" } })
    };
    [
        header("Range", "One range, such as bytes=0-7; anything else is passed over"),
        header("If-Range", "The ETag for which Range is meant"),
        header("If-None-Match", "ETags that the client has"),
    ]
}

fn reference(shape: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{shape}") })
}

/// That a part needs a file name of a form.
fn file_name(part: &str, example: &str) -> Value {
    let example = format!("form-data; name=\"{part}\"; filename=\"{example}\"");
    let header = json!({ "schema": { "type": "string" }, "example": example });
    json!({ part: { "headers": { "Content-Disposition": header } } })
}

/// The body of a route that takes another than JSON.
pub(super) fn body(path: &str) -> Option<Value> {
    let file = || json!({ "type": "string", "format": "binary" });
    let form = object;
    let name = path.trim_start_matches("/service/v1/").split('/').next().unwrap_or_default();
    Some(match name {
        "start-acquisition" => json!({
            "description": "The acquisition's log; the digits before the first _ of its file name are its number",
            "required": true,
            "content": { "multipart/form-data": {
                "schema": form(&["acq-inilog"], json!({ "acq-inilog": file() })),
                "encoding": file_name("acq-inilog", "123_40x168_logfile.ini") } },
        }),
        "create-rois" => json!({
            "description": "Files in any order: which tiles are in which section (CSV), and the sections (INI)",
            "required": true,
            "content": { "multipart/form-data": {
                "schema": form(&["roi-tiles", "roi-spec"], json!({ "roi-tiles": file(), "roi-spec": file() })) } },
        }),
        "end-acquisition" | "store-ancillary-files" => json!({
            "description": "Nothing, or files",
            "required": false,
            "content": { "multipart/form-data": {
                "schema": form(&[], json!({ "ancillary-file": { "type": "array", "items": file() } })) } },
        }),
        "capture-image-content" => json!({
            "description": "The content as it is, or a form with it in any order of its parts",
            "required": true,
            "content": {
                "application/octet-stream": { "schema": BYTES() },
                "multipart/form-data": { "encoding": file_name("tile-file", "col0001_row0002_cam3.tif"),
                    "schema": form(&["tile-file"], json!({
                    "tile-file": file(),
                    "tile-filename": { "type": "string", "pattern": TILE_NAME,
                        "description": "When absent, tile-file's own file name" },
                    "checksum": { "type": "string", "format": "binary", "description": "Its bytes" },
                    "checksum-str": text(HEX_CHECKSUM),
                })) },
            },
        }),
        "calibrations" => json!({
            "description": "Calibrations, each under another name",
            "required": true,
            "content": { "application/json": {
                "schema": { "type": "array", "items": reference("Calibration") } } },
        }),
        "next-tile" => json!({
            "description": "The same parameters once more, for those that the query does not name",
            "required": false,
            "content": { "application/x-www-form-urlencoded": { "schema": { "type": "object" } } },
        }),
        _ => return None,
    })
}

/// What a status means where the route does not say.
pub(super) fn meaning(status: &str) -> &'static str {
    match status {
        "200" => "What was asked for",
        "206" => "The range that was asked for",
        "304" => "The client has this content",
        "409" => "It contradicts what is stored or configured",
        "416" => "The range begins behind the end",
        "417" => "The content is damaged, or not what its sender's checksum says",
        "503" => "Not now",
        _ => "It can not be done",
    }
}

fn header(meaning: &str, schema: &Value) -> Value {
    json!({ "description": meaning, "required": true, "schema": schema })
}

/// What a route's answer of a status has besides what its attribute says.
pub(super) fn answer(path: &str, status: &str, response: &mut Value) {
    let mut headers = Map::new();
    let is_ping = path.ends_with("/ping");
    let is_content = path.ends_with("/content") || path.ends_with("/contents/{key}");
    let is_file = path.ends_with("/files/{name}");
    if status == "503" && !is_ping && path != "/readyz" {
        headers.insert("Retry-After".into(), header("Seconds", &json!({ "type": "integer", "minimum": 0 })));
    }
    if is_ping || path.contains("/capture-image-content/") {
        let pressure = json!({ "type": "string", "enum": ["GREEN", "YELLOW", "RED"] });
        for (name, what) in [
            ("System-Status", "The fuller of both, or RED when the storage failed or tiles are held back"),
            ("Tile-Queue-Status", "How full the index' queue is"),
            ("Content-Queue-Status", "How full the lanes and buffers are"),
        ] {
            headers.insert(name.into(), header(what, &pressure));
        }
        let capture = json!({ "type": "string", "enum": ["RUNNING", "PAUSED", "DRAINING"] });
        headers.insert("Capture-Status".into(), header("Whether tiles are taken", &capture));
    }
    let entity_tag = json!({ "type": "string", "pattern": "^\".+\"$" });
    let is_preview = path.ends_with("/image") || path.contains("/thumbnails/");
    if (is_content && matches!(status, "200" | "206" | "304"))
        || (is_file && status == "200")
        || (is_preview && matches!(status, "200" | "304"))
    {
        headers.insert("ETag".into(), header("Names the content", &entity_tag));
    }
    if is_content && matches!(status, "200" | "206") {
        headers.insert("Accept-Ranges".into(), header("bytes", &json!({ "const": "bytes" })));
        let digest = json!({ "type": "string", "pattern": "^[a-z0-9-]+=:[A-Za-z0-9+/=]*:$" });
        headers.insert("Repr-Digest".into(), header("Of the whole content, RFC 9530", &digest));
    }
    if is_content && matches!(status, "206" | "416") {
        let range = json!({ "type": "string", "pattern": r"^bytes ([0-9]+-[0-9]+|\*)/[0-9]+$" });
        headers.insert("Content-Range".into(), header("Which bytes of how many", &range));
    }
    if is_file && status == "200" {
        headers.insert("X-Content-Type-Options".into(), header("nosniff", &json!({ "const": "nosniff" })));
    }
    if !headers.is_empty() {
        response["headers"] = Value::Object(headers);
    }
    if status == "400" && (path.contains("/end-acquisition/") || path.contains("/store-ancillary-files/")) {
        let either = json!({ "anyOf": [reference("FileResults"), reference("ErrorBody")] });
        response["content"]["application/json"]["schema"] = either;
    }
    let types: &[&str] = match status {
        "200" | "206" if is_content => &IMAGE_TYPES,
        "200" if is_file => &FILE_TYPES,
        "200" if is_preview => &["image/png"],
        _ => return,
    };
    let contents = types.iter().map(|kind| ((*kind).to_owned(), json!({ "schema": BYTES() })));
    response["content"] = Value::Object(contents.collect());
}

/// Adds shapes that are made below this layer, and what some shapes are made of.
pub(super) fn shapes(shapes: &mut Value) {
    shapes["TileSpec"] = tile_spec();
    shapes["PlaceShape"] = place_life();
    shapes["Calibration"] = calibration();
    shapes["NextTile"]["properties"]["tilespec"] = reference("TileSpec");
    shapes["NextTilesAnswer"]["properties"]["resultType"]["enum"] =
        json!(["TILE_FOUND", "NO_TILE_READY", "NO_TILE_READY_IN_SECTION", "SERVED_ALL_ACQ", "SERVED_ALL_SECTION"]);
    shapes["CompletenessShape"]["properties"]["expected_by"]["enum"] = json!(["rois", "mosaic"]);
    shapes["Ready"]["properties"]["ack_level"]["enum"] = json!(["received", "written", "durable", "replicated"]);
    shapes["Ready"]["properties"]["capture"]["enum"] = json!(["running", "paused", "draining"]);
    shapes["Ready"]["properties"]["mirror"]["enum"] = json!(["off", "in_sync", "resynchronising", "lost"]);
    shapes["FileResults"]["properties"]["completeness"] = completeness_at_end();
    let state = &mut shapes["StateChange"]["properties"]["state"];
    state["minLength"] = json!(1);
    state["maxLength"] = json!(STATE_NAME_BYTES_MAX);
    state["pattern"] = json!(NO_CONTROLS);
    for side in ["width", "height"] {
        shapes["CameraShape"]["properties"][side]["minimum"] = json!(1);
    }
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn plain(kind: &str) -> Value {
    json!({ "type": kind })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// What an acquisition's end says of its completeness.
fn completeness_at_end() -> Value {
    let counts = || json!({ "type": "object", "additionalProperties": reference("Counts") });
    let fields = ["expected_by", "expected", "received", "missing", "unexpected", "sections", "cameras"];
    object(
        &fields,
        json!({ "expected_by": { "type": "string", "enum": ["rois", "mosaic"] }, "expected": count(),
            "received": count(), "missing": count(), "unexpected": count(), "sections": counts(), "cameras": counts() }),
    )
}

fn tile_spec() -> Value {
    let text = || plain("string");
    let number = || plain("number");
    let level = object(&["imageUrl"], json!({ "imageUrl": text(), "maskUrl": text() }));
    let layout = object(
        &["camera", "imageCol", "imageRow", "sectionId", "temca", "stageX", "stageY", "rotation"],
        json!({ "camera": plain("integer"), "imageCol": count(), "imageRow": count(), "sectionId": text(),
            "temca": text(), "stageX": number(), "stageY": number(), "rotation": number() }),
    );
    let lens = object(&["type", "refId"], json!({ "type": { "const": "ref" }, "refId": text() }));
    let leaf = object(
        &["type", "className", "dataString"],
        json!({ "type": { "const": "leaf" }, "className": text(), "dataString": text() }),
    );
    let transforms = object(
        &["type", "specList"],
        json!({ "type": { "const": "list" }, "specList": { "type": "array", "items": { "anyOf": [lens, leaf] } } }),
    );
    object(
        &["tileId", "width", "height", "z", "mipmapLevels", "layout", "transforms"],
        json!({ "tileId": text(), "width": count(), "height": count(), "z": number(),
            "mipmapLevels": { "type": "object", "additionalProperties": level },
            "layout": layout, "transforms": transforms }),
    )
}

/// The life of a place, as the catalog tells it.
fn place_life() -> Value {
    let text = || plain("string");
    let integer = || plain("integer");
    let roi = object(&["roi", "section", "state"], json!({ "roi": text(), "section": integer(), "state": text() }));
    let refusal = object(&["at", "reason"], json!({ "at": text(), "reason": text(), "peer": text() }));
    let event = object(
        &["at", "sequence", "event"],
        json!({ "at": text(), "sequence": count(),
            "event": { "type": "string", "enum": ["started", "ended", "deleted", "expected", "stored", "judged", "state"] },
            "tile": count(), "version": count(), "camera": integer(), "size": count(), "checksum": text(), "crc32": text(),
            "segment": text(), "offset": count(), "damaged": plain("boolean"),
            "quality_flags": { "type": "array", "items": text() }, "roi": text(), "section": integer(),
            "state": text(), "lent_until": text() }),
    );
    let list = |items: Value| json!({ "type": "array", "items": items });
    let verdicts =
        ["stored", "damaged", "refused", "missing", "not_expected", "outside_grid", "deleted", "unknown_acquisition"];
    object(
        &["acquisition", "col", "row", "frame", "verdict", "because", "acquisition_state", "events"],
        json!({ "acquisition": count(), "col": count(), "row": count(), "frame": integer(),
            "verdict": { "type": "string", "enum": verdicts }, "because": text(),
            "acquisition_state": { "type": "string", "enum": ["open", "ended", "deleted", "unknown"] },
            "cols": count(), "rows": count(), "rois": list(roi), "events": list(event), "refusals": list(refusal),
            "problems": list(text()) }),
    )
}

fn calibration() -> Value {
    let digits = || json!({ "type": "string", "pattern": "^[0-9]+$" });
    let metadata = object(
        &["calibration_data", "temca", "camera"],
        json!({ "calibration_data": { "type": "string", "pattern": "^[0-9]{6}$", "description": "yymmdd" },
            "group": plain("string"), "temca": digits(), "camera": digits() }),
    );
    object(
        &["id", "metadata", "specList"],
        json!({ "id": { "type": "string", "minLength": 1, "description": "Its name" }, "type": plain("string"),
            "metadata": metadata, "specList": { "type": "array", "minItems": 1 } }),
    )
}
