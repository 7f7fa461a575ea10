//! Suggests similar names for one that does not exist.

use super::container::TensorInfo;
use crate::types::name::Name;

/// The up to three names or aliases nearest to `wanted`, best first. Leaves out those that are too different to be meant.
pub(crate) fn nearest(wanted: &[u8], infos: impl Iterator<Item = TensorInfo>) -> Vec<String> {
    const SUGGESTED: usize = 3;
    /// Limit on work: a comparison costs the product of both lengths, and all of them should take well under a second.
    const MOST_WORK: usize = 100_000_000;
    let wanted = Name::new(wanted).to_string().to_lowercase();
    let most = (wanted.chars().count() / 3).max(2);
    let mut work = 0;
    let mut best: Vec<(usize, String)> = Vec::new();
    for info in infos {
        let candidate = [Some(info.name.to_string()), info.alias]
            .into_iter()
            .flatten()
            .filter_map(|name| {
                let lower = name.to_lowercase();
                let is_end = lower.strip_suffix(&wanted).is_some_and(|front| front.ends_with('/'));
                let is_front = lower.strip_prefix(&wanted).is_some_and(|behind| behind.starts_with('/'));
                let contains = is_end || is_front || wanted.len() >= 3 && lower.contains(&wanted);
                if contains {
                    return Some((lower.len() - wanted.len(), name));
                }
                if lower.len().abs_diff(wanted.len()) > 4 * most {
                    return None;
                }
                work += lower.len() * wanted.len();
                (work <= MOST_WORK).then(|| strsim::damerau_levenshtein(&wanted, &lower)).filter(|&d| d <= most).map(|d| (d, name))
            })
            .min();
        if let Some(candidate) = candidate {
            let at = best.partition_point(|known| *known <= candidate);
            best.insert(at, candidate);
            best.truncate(SUGGESTED);
        }
        if work > MOST_WORK {
            break;
        }
    }
    best.into_iter().map(|(_, name)| name).collect()
}
