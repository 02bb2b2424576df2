//! doctor, as a person runs it. Figures are not judged here: bench/doctor.rs does that.

use super::support::{Daemon, data_dir, program};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

fn doctor(args: &[&str]) -> Output {
    program().arg("doctor").args(["--time", "40ms"]).args(args).output().expect("runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

#[test]
fn every_profile_gets_a_forecast_and_nothing_is_left_behind() {
    let dir = data_dir();
    let examined = doctor(&["--dir", text(dir.path()), "--json"]);
    assert!(examined.status.success(), "{}", String::from_utf8_lossy(&examined.stderr));
    let said: Value = serde_json::from_slice(&examined.stdout).expect("JSON");
    let profiles: Vec<&str> =
        said["forecasts"].as_array().expect("a list").iter().filter_map(|one| one["profile"].as_str()).collect();
    assert_eq!(profiles, ["temca2", "gridtape", "piteam", "multisem", "lightsheet"]);
    for forecast in said["forecasts"].as_array().expect("a list") {
        let number = |name: &str| forecast[name].as_f64().expect("a number");
        let margin = number("capacity_mb_per_s") / number("needed_mb_per_s");
        assert!((margin / number("margin") - 1.0).abs() < 1e-6 && number("holds_up_to") < margin, "{forecast}");
    }
    assert!(said["disk"].as_array().expect("a list").iter().all(|point| point["mb_per_s"].as_f64() > Some(0.0)));
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[test]
fn a_daemon_elsewhere_is_measured_and_keeps_nothing() {
    let (dir, data) = (data_dir(), data_dir());
    // Larger tiles than the small daemons of other tests take.
    let daemon = Daemon::start_bare(data.path(), &["capture.frame_max=32MiB", "storage.segment_size=64MiB"]);
    let (capture, http) = (daemon.capture.to_string(), format!("http://{}", daemon.http_address));
    let args = ["--dir", text(dir.path()), "--capture", &capture, "--http", &http, "--profile", "temca2"];
    let examined = doctor(&args);
    let said = String::from_utf8_lossy(&examined.stdout).into_owned();
    assert!(examined.status.success(), "{said}{}", String::from_utf8_lossy(&examined.stderr));
    assert!(said.contains("| temca2 | 363 |") && said.contains("the server, or the way to it"), "{said}");
    let listing = daemon.http.get_path("/service/v1/acquisitions").expect("a listing").bytes;
    let listing: Value = serde_json::from_slice(&listing).expect("JSON");
    assert_eq!(listing["length"], 0);
}

#[test]
fn what_can_not_be_measured_is_named() {
    let dir = data_dir();
    let problem = |args: &[&str], code: i32| {
        let examined = doctor(args);
        assert_eq!(examined.status.code(), Some(code));
        String::from_utf8_lossy(&examined.stderr).into_owned()
    };
    assert!(problem(&["--dir", "/no/such/place"], 2).contains("/no/such/place: "));
    assert!(problem(&["--profile", "nothing"], 2).contains("temca2, gridtape"));
    let nobody = ["--dir", text(dir.path()), "--capture", "127.0.0.1:1", "--http", "http://127.0.0.1:1"];
    assert!(problem(&nobody, 3).contains("is the daemon running"));
}
