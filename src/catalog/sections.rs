//! How often a section was imaged before: the number with which render tells one imaging of it from the next.
//!
//! Looks through all acquisitions once, however many sections are asked for. Must never look through them for each.

use crate::index::{AcquisitionView, Index};
use crate::model::AcqId;
use std::collections::{HashMap, HashSet};

/// For each section the number of acquisitions of the same sample, earlier than `acq`, that hold it.
pub(super) fn earlier_with_sections(
    all: &[(AcqId, AcquisitionView)],
    (acq, view): (AcqId, &AcquisitionView),
    sections: impl Iterator<Item = i64>,
) -> HashMap<i64, u32> {
    let mut counts: HashMap<i64, u32> = sections.map(|section| (section, 0)).collect();
    let (mine, own) = (sample(view), (Index::acquired_s(view), acq));
    let earlier =
        |(other, found): &&(AcqId, AcquisitionView)| (Index::acquired_s(found), *other) < own && sample(found) == mine;
    for (_, found) in all.iter().filter(earlier) {
        // Several ROIs of it may be of one section.
        let held: HashSet<i64> = found.head.rois.iter().map(|roi| roi.section).collect();
        for section in held {
            counts.entry(section).and_modify(|count| *count += 1);
        }
    }
    counts
}

fn sample(view: &AcquisitionView) -> Option<&str> {
    view.head.started.as_ref().map(|started| started.facts.sample_name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{AcquisitionHead, StartedView};
    use crate::model::{AcquisitionFacts, Roi};
    use std::sync::Arc;

    fn acquisition(sample: &str, acquired_s: i64, sections: impl IntoIterator<Item = i64>) -> AcquisitionView {
        let facts = AcquisitionFacts {
            sample_name: sample.to_owned(),
            acquired_unix_s: Some(acquired_s),
            ..AcquisitionFacts::default()
        };
        let started = StartedView { facts, ..StartedView::default() };
        let roi = |(n, section)| Roi { name: format!("{n}.{section}"), section, prev: 0 };
        let rois = sections.into_iter().enumerate().map(roi).collect();
        let head = AcquisitionHead { started: Some(started), rois, ..AcquisitionHead::default() };
        AcquisitionView { head: Arc::new(head), ..AcquisitionView::default() }
    }

    #[test]
    fn an_earlier_acquisition_of_the_sample_counts_once_for_each_of_its_sections() {
        let mine = acquisition("leaf", 100, []);
        let all = vec![
            (AcqId(1), acquisition("leaf", 10, [7, 7, 8])),
            (AcqId(2), acquisition("leaf", 20, [7])),
            (AcqId(3), acquisition("root", 20, [7])),
            (AcqId(4), acquisition("leaf", 100, [8])),
            (AcqId(5), mine.clone()),
            (AcqId(6), acquisition("leaf", 100, [7, 8, 9])),
        ];
        let counts = earlier_with_sections(&all, (AcqId(5), &mine), [7, 8, 9, 7].into_iter());
        assert_eq!(counts, HashMap::from([(7, 2), (8, 2), (9, 0)]));
    }

    #[test]
    fn ten_thousand_sections_cost_one_pass_over_all_acquisitions() {
        let mine = acquisition("leaf", 100, []);
        let one = acquisition("leaf", 10, 0..20_000);
        let all: Vec<_> = (1..51).map(|n| (AcqId(n), one.clone())).collect();
        // For each section anew these would be ten thousand million comparisons.
        let counts = earlier_with_sections(&all, (AcqId(99), &mine), 10_000..20_000);
        assert!(counts.len() == 10_000 && counts.values().all(|count| *count == 50));
    }
}
