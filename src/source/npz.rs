//! `.npz` archives: a `.npy` in each member, stored or deflated.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::container::{Container, TensorInfo};
use super::driver::Driver;
use super::npy::{EXTENSION, InFile, MAGIC, MOST_HEADER, NpyArray};
use super::table::{TensorPlace, TensorTable};
use crate::error::{Error, Result};
use crate::format::crc::Checksum;
use crate::format::npy::Header;
use crate::options::Options;
use crate::reader::checksums::Region;
use crate::reader::inflated::{Inflated, checksum, inflate_front};
use crate::reader::tensor_reader::TensorReader;
use crate::storage::archive::{self, Member, Packing};
use crate::storage::blob::Blob;
use crate::storage::probe::Probe;
use crate::types::name::Name;
use crate::types::size::memory_len;

/// An archive of arrays.
pub(crate) struct Npz;

impl Driver for Npz {
    fn name(&self) -> &'static str {
        "npz"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        if !probe.is_file()? || !probe.front().is_ok_and(|front| archive::MAGICS.iter().any(|magic| front.starts_with(magic))) {
            return Ok(None);
        }
        let is_named = probe.path().extension().is_some_and(|extension| extension == self.name());
        let is_one = is_named || archive::members(&probe.open()?)?.iter().any(|member| is_array(&member.name));
        Ok(is_one.then(|| probe.clone()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, place: &Probe, _: &Options) -> Result<Box<dyn Container>> {
        let path = place.path();
        let file = place.open()?;
        let (mut tensors, mut warnings) = (Vec::new(), Vec::new());
        for member in archive::members(&file)? {
            match packed_array(&file, member)? {
                Ok(tensor) => tensors.push(tensor),
                Err(other) => warnings.push(format!("{}: the member {} is not an array", path.display(), Name::new(other))),
            }
        }
        // The extension is stripped, unless a member has the stripped name itself.
        let whole: HashSet<Vec<u8>> = tensors.iter().map(|(_, array)| array.member.name.clone()).collect();
        for (info, array) in &mut tensors {
            if info.name.as_bytes() != array.member.name && whole.contains(info.name.as_bytes()) {
                *info = TensorInfo { name: Name::new(array.member.name.clone()), alias: None, ..info.clone() };
            }
        }
        Ok(Box::new(TensorTable::new(self.name(), vec![path.to_owned()], tensors, Map::new()).with_warnings(warnings)))
    }
}

fn is_array(name: &[u8]) -> bool {
    name.ends_with(EXTENSION.as_bytes())
}

/// The array in a member, or the member's name if it has none.
fn packed_array(file: &Arc<dyn Blob>, member: Member) -> Result<Result<(TensorInfo, PackedArray), Vec<u8>>> {
    let what = || format!("member {}", Name::new(member.name.clone()));
    let malformed = |detail: String| Error::malformed_at(file.path(), what(), member.offset, detail);
    let most = member.size.min(MOST_HEADER);
    // The name that `numpy.load` uses.
    let name = Name::new(member.name.strip_suffix(EXTENSION.as_bytes()).unwrap_or(&member.name));
    let front = match &member.packing {
        Err(_) if !is_array(&member.name) => return Ok(Err(member.name)),
        Err(why) => {
            let array = NpyArray::new(&Header::new("|O", &[])).map_err(malformed)?;
            let info = TensorInfo { unsupported: Some(why.clone()), ..array.info(name) };
            return Ok(Ok((info, PackedArray { file: Arc::clone(file), member, start: 0, array, region: None })));
        }
        Ok(Packing::Stored) => {
            let mut front = vec![0; memory_len(most)];
            file.read(member.offset, &mut front, file.calls())?;
            front
        }
        Ok(Packing::Deflated) => inflate_front(&**file, &packed(&member), memory_len(most))?,
    };
    if !front.starts_with(MAGIC) && !is_array(&member.name) {
        return Ok(Err(member.name));
    }
    let (header, start) = Header::parse(&front).map_err(|error| malformed(format!("{} at its byte {}", error.detail, error.offset)))?;
    let array = NpyArray::new(&header).map_err(malformed)?;
    let have = member.size.saturating_sub(start);
    if array.info(Name::new([])).unsupported.is_none() && have < array.spec.nbytes() {
        return Err(malformed(format!("{have} bytes of data, {} has {}", array.spec, array.spec.nbytes())));
    }
    let alias = String::from_utf8(member.name.clone()).ok().filter(|alias| alias.as_bytes() != name.as_bytes());
    let mut info = TensorInfo { alias, ..array.info(name) };
    if info.unsupported.is_none() && have > array.spec.nbytes() {
        // Check the archive first: the header may have been damaged.
        check_whole(&**file, &member)?;
        let behind = have - array.spec.nbytes();
        info.unsupported = Some(format!("{behind} bytes follow the array in its member: numpy.load would ignore them"));
    }
    // A member's checksum is a linear function of those of its parts. It covers the header and bytes behind the elements.
    let kind = member.checksum.kind();
    let checksum = Checksum::Crc32(kind.behind(kind.of(&front[..memory_len(start)]), member.checksum.value(), have));
    let region = Region::new(Arc::clone(file.path()), member.offset, array.spec.nbytes(), checksum);
    let region = (have == array.spec.nbytes()).then_some(region);
    Ok(Ok((info, PackedArray { file: Arc::clone(file), member, start, array, region })))
}

/// Verifies the checksum of a whole member.
fn check_whole(file: &dyn Blob, member: &Member) -> Result<()> {
    let (kind, said) = (member.checksum.kind(), member.checksum.value());
    let found = if member.packing == Ok(Packing::Deflated) {
        checksum(file, &packed(member), member.size, kind)?
    } else {
        const CHUNK: u64 = 64 << 10;
        let mut crc = 0;
        for at in (0..member.size).step_by(memory_len(CHUNK)) {
            let mut chunk = vec![0; memory_len(CHUNK.min(member.size - at))];
            file.read(member.offset + at, &mut chunk, file.calls())?;
            crc = kind.append(crc, &chunk);
        }
        crc
    };
    if found != said {
        let detail = format!("{} of {} bytes is {found:#010x}, the archive says {said:#010x}", kind.name(), member.size);
        return Err(Error::malformed_at(file.path(), format!("member {}", Name::new(member.name.clone())), member.offset, detail));
    }
    Ok(())
}

fn packed(member: &Member) -> Range<u64> {
    member.offset..member.offset + member.packed
}

/// An array in an archive.
#[derive(Debug)]
struct PackedArray {
    file: Arc<dyn Blob>,
    member: Member,
    /// Offset of the elements in the unpacked member.
    start: u64,
    array: NpyArray,
    /// The elements' checksum, derived from the archive's.
    region: Option<Region>,
}

impl TensorPlace for PackedArray {
    fn reader<'a>(&'a self, _: &TensorInfo) -> Result<Box<dyn TensorReader + 'a>> {
        let NpyArray { spec, order, layout, .. } = &self.array;
        if self.member.packing == Ok(Packing::Deflated) {
            let packed = packed(&self.member);
            return Ok(Box::new(Inflated::new(&self.file, packed, self.start, spec.clone(), (*order, *layout), self.region.clone())));
        }
        let in_file = InFile { file: Arc::clone(&self.file), offset: self.member.offset + self.start, array: self.array.clone() };
        let stored = in_file.stored()?;
        Ok(Box::new(match &self.region {
            Some(region) => stored.in_region(region.clone()),
            None => stored,
        }))
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = self.array.facts();
        let packing = if self.member.packing == Ok(Packing::Stored) { "none" } else { "deflate" };
        facts.insert("compression".into(), json!(packing));
        facts.insert("offset".into(), json!(self.member.offset));
        facts.insert("stored_bytes".into(), json!(self.member.packed));
        facts.insert("crc32".into(), json!(format!("{:#010x}", self.member.checksum.value())));
        facts
    }
}
