//! All senders of a plan, ready to be connected: their schedules, and where their tiles come from.

use super::plan::{Plan, ReplayError};
use super::profile::{Mode, Phase, Profile, SenderGroup};
use super::schedule::Schedule;
use super::source::{Feed, Images, Prepared, SourceChoice, StoredTiles, TimingFile, TimingTable};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A sender to be.
pub(super) struct SenderPlan {
    pub(super) schedule: Option<Schedule>,
    pub(super) feed: Feed,
    pub(super) connections: u32,
    pub(super) window: u32,
}

/// All of them.
pub(super) struct Fleet {
    pub(super) senders: Vec<SenderPlan>,
    pub(super) images: Images,
    /// Tiles and bytes a second that are due while senders run, after the ramp; 0 in a closed loop.
    pub(super) tiles_per_s: f64,
    pub(super) bytes_per_s: f64,
}

impl Fleet {
    pub(super) fn build(plan: &Plan) -> Result<Self, ReplayError> {
        plan.profile
            .check()
            .map_err(|problem| ReplayError::Usage(format!("profile {}: {problem}", plan.profile.name)))?;
        if plan.duration.is_zero() {
            return Err(ReplayError::Usage("the duration must be above 0".to_owned()));
        }
        if plan.profile.mode == Mode::Closed && plan.rate.is_some() {
            return Err(ReplayError::Usage("a closed loop has no rate: it is as fast as the server".to_owned()));
        }
        let checksum = plan.profile.senders[0].checksum;
        match &plan.source {
            SourceChoice::Synthetic => synthetic(plan),
            SourceChoice::Folder(dir) => stored(plan, StoredTiles::of_folder(dir, checksum)?),
            #[cfg(feature = "daemon")]
            SourceChoice::Journal { data, acq } => stored(plan, StoredTiles::of_journal(data, *acq, checksum)?),
            #[cfg(not(feature = "daemon"))]
            SourceChoice::Journal { data, .. } => Err(ReplayError::Usage(format!(
                "{}: this program was built without the daemon's parts and reads no journal",
                data.display()
            ))),
            SourceChoice::Timing { file, step } => timed(plan, file, *step),
        }
    }
}

/// The plan's profile at the plan's rate, when tiles have this mean length (`None`: as the profile says).
fn at_rate(plan: &Plan, mean_bytes: Option<f64>) -> Result<(Profile, f64, f64), ReplayError> {
    let mut profile = plan.profile.clone();
    let bytes = |profile: &Profile| mean_bytes.map_or(profile.bytes_per_s(), |mean| mean * profile.tiles_per_s());
    if let Some(rate) = plan.rate {
        profile.speed_up(rate.factor(profile.tiles_per_s(), bytes(&profile)));
        profile.check().map_err(|problem| ReplayError::Usage(format!("at the rate {rate}: {problem}")))?;
    }
    let (tiles_per_s, bytes_per_s) = (profile.tiles_per_s(), bytes(&profile));
    let open = profile.mode == Mode::Open;
    Ok(if open { (profile, tiles_per_s, bytes_per_s) } else { (profile, 0.0, 0.0) })
}

/// Each sender of a profile: its group's number, the group, its own schedule.
fn each_sender(profile: &Profile, seed: u64) -> Vec<(usize, &SenderGroup, Option<Schedule>)> {
    let mut all = Vec::new();
    for (number, group) in profile.senders.iter().enumerate() {
        for n in 0..group.count {
            let phase = match profile.timing.phase {
                Phase::Spread => f64::from(n) / f64::from(group.count),
                Phase::Together => 0.0,
            };
            let seed = seed ^ (all.len() as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let schedule = Schedule::at_rate(group.bursts_per_s, group.burst, phase, profile.timing, seed);
            all.push((number, group, (profile.mode == Mode::Open).then_some(schedule)));
        }
    }
    all
}

fn prepare(profile: &Profile, seed: u64) -> Result<Vec<Arc<Prepared>>, ReplayError> {
    let groups = (0..).zip(&profile.senders);
    let made = groups.map(|(number, group)| Prepared::make(number, group, seed).map(Arc::new));
    Ok(made.collect::<Result<_, _>>()?)
}

fn synthetic(plan: &Plan) -> Result<Fleet, ReplayError> {
    let (profile, tiles_per_s, bytes_per_s) = at_rate(plan, None)?;
    let prepared = prepare(&profile, plan.seed)?;
    let all = each_sender(&profile, plan.seed);
    let count = u32::try_from(all.len()).map_err(|_| ReplayError::Usage("too many senders".to_owned()))?;
    let senders = (0..).zip(all).map(|(n, (number, group, schedule))| {
        let seed = plan.seed.wrapping_add(u64::from(n));
        let feed = Feed::grid(Arc::clone(&prepared[number]), n, count, group.cameras, seed);
        SenderPlan { schedule, feed, connections: group.connections, window: group.window }
    });
    let senders = senders.collect();
    Ok(Fleet { senders, images: Images::Prepared(prepared), tiles_per_s, bytes_per_s })
}

fn stored(plan: &Plan, tiles: StoredTiles) -> Result<Fleet, ReplayError> {
    let (profile, tiles_per_s, bytes_per_s) = at_rate(plan, Some(tiles.mean_bytes()))?;
    let tiles = Arc::new(tiles);
    let all = each_sender(&profile, plan.seed);
    let feeds = Feed::stored(&tiles, all.len(), plan.memory)?;
    let senders = all.into_iter().zip(feeds).map(|((_, group, schedule), feed)| SenderPlan {
        schedule,
        feed,
        connections: group.connections,
        window: group.window,
    });
    let senders = senders.collect();
    Ok(Fleet { senders, images: Images::Stored(tiles), tiles_per_s, bytes_per_s })
}

/// Each camera of the table is a sender with connections, window and tiles of the profile's first group.
fn timed(plan: &Plan, file: &Path, step: Option<Duration>) -> Result<Fleet, ReplayError> {
    if plan.profile.mode == Mode::Closed {
        return Err(ReplayError::Usage("a timing table says when tiles are due: the mode must be open".to_owned()));
    }
    let group = &plan.profile.senders[0];
    let prepared = Arc::new(Prepared::make(0, group, plan.seed)?);
    let file = TimingFile::read(file, step)?;
    let table = TimingTable::new(&file, 1.0);
    let mean = prepared.mean_bytes();
    let factor = plan.rate.map_or(1.0, |rate| rate.factor(table.tiles_per_s(), table.tiles_per_s() * mean));
    let table = TimingTable::new(&file, factor);
    let senders = table.cameras.iter().map(|camera| SenderPlan {
        schedule: Some(Schedule::of_table(Arc::clone(&camera.times), table.lap)),
        feed: Feed::table(Arc::clone(&prepared), camera, table.cols, plan.seed),
        connections: group.connections,
        window: group.window,
    });
    let senders = senders.collect();
    let tiles_per_s = table.tiles_per_s();
    Ok(Fleet { senders, images: Images::Prepared(vec![prepared]), tiles_per_s, bytes_per_s: tiles_per_s * mean })
}
