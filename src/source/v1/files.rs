//! The files of a V1 checkpoint.

use std::os::unix::ffi::OsStrExt;

use super::table;
use crate::error::{Error, Result};
use crate::source::bundle::names::{names_in, to_path};
use crate::storage::paths::{Found, parent_of};
use crate::storage::probe::Probe;

/// The files of the checkpoint that `path` names: its only file, one of several, their prefix, or a pattern for them.
///
/// # Errors
/// [`Error::NotFound`] if some are missing, [`Error::Io`].
pub(crate) fn files(probe: &Probe) -> Result<Option<Vec<Probe>>> {
    let (path, storage) = (probe.path(), probe.storage());
    let (dir, name) = (parent_of(path), path.file_name().unwrap_or_default().as_bytes());
    let (prefix, count) = match (probe.found()?, shard_of(name)) {
        (Found::File, shard) => {
            if !table::ends_like_one(&*probe.open()?)? {
                return Ok(None);
            }
            let Some(shard) = shard else { return Ok(Some(vec![probe.clone()])) };
            shard
        }
        (Found::Nothing, Some(shard)) => shard,
        (Found::Nothing, None) => {
            let names = names_in(dir, storage);
            let found = names.iter().find_map(|other| shard_of(other.as_bytes()).filter(|(prefix, _)| *prefix == name));
            let Some((_, count)) = found else { return Ok(None) };
            (name, count)
        }
        _ => return Ok(None),
    };
    // Count only existing files: the name may claim any number.
    let there = names_in(dir, storage).iter().filter(|other| shard_of(other.as_bytes()) == Some((prefix, count))).count();
    let shard = |number: usize| dir.join(to_path(&[prefix, format!("-{number:05}-of-{count:05}").as_bytes()].concat()));
    let first = probe.at(shard(0));
    if there == 0 || (first.is_file()? && !table::ends_like_one(&*first.open()?)?) {
        return Ok(None);
    }
    if let Some(missing) = (0..count).map(shard).find(|path| !storage.is_file(path).unwrap_or(false)) {
        let detail = format!("{} is missing, {there} of {count} files are there", missing.display());
        return Err(Error::NotFound { what: "shard", detail });
    }
    Ok(Some((0..count).map(|number| probe.at(shard(number))).collect()))
}

/// The prefix and the number of files in the name of one of several, or in a pattern: `P` and 4 for `P-00001-of-00004` and
/// `P-?????-of-00004`.
pub(crate) fn shard_of(name: &[u8]) -> Option<(&[u8], usize)> {
    const OF: &[u8] = b"-of-";
    const DIGITS: usize = 5;
    let (front, count) = name.split_at(name.len().checked_sub(DIGITS)?);
    let front = front.strip_suffix(OF)?;
    let (prefix, number) = front.split_at(front.len().checked_sub(DIGITS + 1)?);
    let number = number.strip_prefix(b"-")?;
    let is_number = number.iter().all(u8::is_ascii_digit) || number == b"?????";
    let count = std::str::from_utf8(count).ok().filter(|_| is_number)?.parse().ok()?;
    Some((prefix, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_shards_lead_to_their_prefix() {
        assert_eq!(shard_of(b"m.ckpt-1-00002-of-00004"), Some((&b"m.ckpt-1"[..], 4)));
        assert_eq!(shard_of(b"m-?????-of-00012"), Some((&b"m"[..], 12)));
        for name in [&b"m"[..], b"m-00001", b"m-0000x-of-00004", b"-of-00004", b"m.data-00000-of-000001"] {
            assert_eq!(shard_of(name), None);
        }
    }
}
