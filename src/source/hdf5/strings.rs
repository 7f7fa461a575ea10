//! Strings of any length: a dataset of references to global heaps, each of which is read once.

use std::ops::Range;

use super::storage::FileRange;
use crate::error::{Error, Result};
use crate::format::hdf5::failure::Failure;
use crate::format::hdf5::file::File;
use crate::format::hdf5::global_heap::{Collection, TextPlace, places};
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::{ReadContext, TensorReader};
use crate::source::container::TensorInfo;
use crate::types::size::memory_len;

/// Most memory for the strings of a dataset that are read together.
const MOST_STRINGS: u64 = 64 << 20;
/// Bytes per string beside its content, here and in the file.
const EACH: u64 = 80;

/// Reads the strings to which the elements of `reader` refer.
///
/// # Errors
/// [`Error::Limit`] if they exceed their memory, counted before any is read; [`Error::Malformed`]; [`Error::Io`].
pub(crate) fn read<'a>(
    part: &FileRange,
    opened: &File,
    info: &TensorInfo,
    reader: impl FnOnce() -> Result<Box<dyn TensorReader + 'a>>,
) -> Result<StoredStrings<'static>> {
    let path = part.file.path();
    let what = || format!("HDF5 dataset {}", info.name);
    let limit = |asked: u64| {
        let what = format!("memory for the strings of {} in {}", info.name, path.display());
        Error::Limit { what, asked, allowed: Some(MOST_STRINGS) }
    };
    let asked = info.spec.elements().saturating_mul(EACH);
    if asked > MOST_STRINGS {
        return Err(limit(asked));
    }
    let reader = reader()?;
    let nbytes = memory_len(reader.spec().nbytes());
    let mut bytes = vec![0; nbytes];
    let mut context = ReadContext::new(nbytes.max(1), None, part.file.calls());
    reader.read(0..nbytes as u64, &mut bytes, &mut context)?;
    drop(reader);
    let places = places(&opened.image, &bytes).map_err(|failure| part.error(what(), failure))?;
    let asked = places.iter().flatten().map(|place| u64::from(place.len)).sum();
    if asked > MOST_STRINGS {
        return Err(limit(asked));
    }
    let (text, ranges) = texts(opened, &places).map_err(|failure| part.error(what(), failure))?;
    StoredStrings::held(path, &info.name, info.spec.shape(), |each| ranges.into_iter().try_for_each(|range| each(&text[range])))
}

/// All strings concatenated, and the range of each.
fn texts(opened: &File, places: &[Option<TextPlace>]) -> Result<(Vec<u8>, Vec<Range<usize>>), Failure> {
    let mut order: Vec<usize> = (0..places.len()).filter(|&at| places[at].is_some()).collect();
    order.sort_by_key(|&at| places[at]);
    let (mut text, mut ranges) = (Vec::new(), vec![0..0; places.len()]);
    let mut last: Option<(u64, Collection)> = None;
    // Collections must not overlap.
    let mut left = opened.image.len();
    for at in order {
        let Some(place) = places[at] else { continue };
        let collection = match last.take() {
            Some(known) if known.0 == place.collection => known,
            _ => {
                let collection = Collection::read(&opened.image, place.collection)?;
                let overlap = || Failure::broken(opened.image.place(place.collection), "global heap", "collections overlap");
                left = left.checked_sub(collection.nbytes()).ok_or_else(overlap)?;
                (place.collection, collection)
            }
        };
        let start = text.len();
        text.extend_from_slice(collection.1.text(&place)?);
        ranges[at] = start..text.len();
        last = Some(collection);
    }
    Ok((text, ranges))
}
