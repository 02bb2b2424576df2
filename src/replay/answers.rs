//! What is made of an answer: counted, held against what was expected, or the reason to send again.

use super::course::Course;
use super::faults::{Expected, Fault};
use super::link::Job;
use super::profile::Mode;
use super::samples::Sample;
use super::tally::{Interval, Tally, record, slot};
use crate::client::PipelinedAnswer;
use std::collections::VecDeque;

/// What a thread counts into.
pub(super) struct Counts<'a> {
    pub(super) course: &'a Course<'a>,
    pub(super) tally: &'a mut Tally,
    pub(super) interval: &'a mut Interval,
}

/// Counts an answer; a tile that is to be sent twice goes to the end of `again`.
pub(super) fn take_answer(answer: PipelinedAnswer<Job>, again: &mut VecDeque<Job>, counts: &mut Counts<'_>) {
    let PipelinedAnswer { tag: job, response, began, received } = answer;
    let (now, began) = (counts.course.time_of(received), began.map(|began| counts.course.time_of(began)));
    counts.tally.last_answer = now;
    let pressure = response.system as usize;
    counts.tally.pressure[pressure] += 1;
    counts.interval.pressure[pressure] += 1;
    let as_expected = job.expected.holds(response.status, response.tile);
    if response.status != 0 {
        counts.interval.refused[slot(response.status)] += 1;
    }
    if response.status == 0 && job.expected == Expected::Acknowledged {
        count_acknowledged(&job, now, began, counts);
    }
    let say = || format!("{:?} was answered with status {} and tile id {}", job.place, response.status, response.tile);
    match job.fault {
        None if response.status != 0 => counts.tally.refused[slot(response.status)] += 1,
        None => {}
        Some(Fault::Duplicate) if job.expected == Expected::Acknowledged && as_expected => {
            again.push_back(Job { expected: Expected::SameId(response.tile), ..job });
        }
        Some(fault) => {
            counts.tally.faults.judge(fault, as_expected, say);
            if fault == Fault::Corrupt && as_expected {
                counts.tally.keep_corrupt(job.place);
            }
        }
    }
}

fn count_acknowledged(job: &Job, now: u64, began: Option<u64>, counts: &mut Counts<'_>) {
    let bytes = job.image.bytes.len() as u64;
    let (tally, interval) = (&mut *counts.tally, &mut *counts.interval);
    tally.acknowledged += 1;
    tally.bytes += bytes;
    if now < counts.course.end() {
        tally.acknowledged_in_time += 1;
        tally.bytes_in_time += bytes;
    }
    interval.tiles += 1;
    interval.bytes += bytes;
    if job.place.frame.is_stable() {
        tally.samples.offer(Sample { col: job.place.col, row: job.place.row, id: job.id });
    }
    // What is slow or cut on purpose says nothing of the server.
    if job.fault.is_some_and(|fault| fault != Fault::Reorder && fault != Fault::Duplicate) {
        return;
    }
    let latency = now.saturating_sub(job.intended);
    record(&mut tally.latency, latency);
    record(&mut interval.latency, latency);
    if let Some(began) = began {
        record(&mut tally.service, now.saturating_sub(began));
        if counts.course.plan.profile.mode == Mode::Open {
            let late = began.saturating_sub(job.intended);
            record(if job.wait.is_some() { &mut tally.behind } else { &mut tally.schedule_error }, late);
        }
    }
}
