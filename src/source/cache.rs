//! `Dataset.cache(filename)`: a bundle with a key for each component of each element.
//!
//! Source of the keys: `FileDatasetBase::FormatName` in `tensorflow/core/kernels/data/cache_dataset_ops.cc`: both numbers padded
//! with blanks and joined by `_`.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::bundle::path::resolve;
use super::bundle::{self, Bundle, ShardPlace};
use super::container::{Container, TensorInfo};
use super::driver::Driver;
use crate::error::texts::ShapeText;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::options::budget::Limits;
use crate::reader::checksums::Region;
use crate::reader::strings::chain::Chain;
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::{ReadContext, TensorReader};
use crate::storage::probe::Probe;
use crate::types::byte_order::ByteOrder;
use crate::types::name::Name;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// A `Dataset.cache` bundle, listed by components only. Opened on request, since the same bundle can be read by its keys.
pub(crate) struct TfDataCache;

impl Driver for TfDataCache {
    fn name(&self) -> &'static str {
        "tf-data-cache"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        resolve(probe)
    }

    fn open(&self, place: &Probe, _: &Options) -> Result<Box<dyn Container>> {
        let prefix = place.path();
        let bundle = Bundle::open(prefix, bundle::driver::NAME, &Limits::default(), place.storage())?;
        let Some(components) = Cache::components(&bundle) else {
            let detail = format!("the keys of {} do not number elements and components", bundle::index_path(prefix).display());
            return Err(Error::Unsupported { what: "a bundle as a tf.data cache".into(), detail });
        };
        Ok(Box::new(Cache::new(bundle, components, true)?))
    }
}

/// A bundle that is a cache: its tensors by key, and each component of all elements as one array.
#[derive(Debug)]
pub(crate) struct Cache {
    bundle: Bundle,
    components: usize,
    elements: usize,
    /// Whether to list whole components only.
    only_components: bool,
}

/// The numbers of element and component in a key.
fn numbers(key: &[u8]) -> Option<(usize, usize)> {
    let (element, component) = std::str::from_utf8(key).ok()?.split_once('_')?;
    let number = |text: &str| text.trim_start_matches(' ').parse().ok();
    Some((number(element)?, number(component)?))
}

impl Cache {
    /// The number of components per element; `None` if the bundle is not a cache.
    pub(crate) fn components(bundle: &Bundle) -> Option<usize> {
        let count = bundle.len().ok()?;
        let components = (0..count).take_while(|&i| numbers(bundle.key(i)) == Some((0, i))).count();
        let is_cache = components > 0
            && count.is_multiple_of(components)
            && (0..count).all(|i| numbers(bundle.key(i)) == Some((i / components, i % components)));
        is_cache.then_some(components)
    }

    /// Wraps a bundle whose elements have `components` components.
    pub(crate) fn new(bundle: Bundle, components: usize, only_components: bool) -> Result<Self> {
        Ok(Self { elements: bundle.len()? / components, components, bundle, only_components })
    }

    /// Number of tensors that are listed by key.
    fn by_key(&self) -> usize {
        if self.only_components { 0 } else { self.components * self.elements }
    }

    /// The component that tensor `index` collects from all elements.
    fn component(&self, index: usize) -> Option<usize> {
        index.checked_sub(self.by_key())
    }

    /// Checks that an element can be a row of an array.
    fn check_same(&self, component: usize, whole: &TensorSpec, element: usize, found: &TensorSpec) -> Result<()> {
        let shape = &whole.shape()[1..];
        if found.dtype() == whole.dtype() && found.shape() == shape {
            return Ok(());
        }
        let what = format!("component {component} of {} as one array", self.bundle.index_path().display());
        let detail =
            format!("element {element} is {found}, element 0 {} {}: convert each by its key instead", whole.dtype(), ShapeText(shape));
        Err(Error::Unsupported { what, detail })
    }

    fn stacked_spec(&self, component: usize) -> Result<TensorSpec> {
        let first = self.bundle.info(component)?.spec;
        let shape = [&[self.elements as u64], first.shape()].concat();
        TensorSpec::new(first.dtype(), shape)
            .map_err(|request| Error::malformed(self.bundle.index_path(), "tf.data cache", request.to_string()))
    }
}

impl Cache {
    /// Finds a key whose numbers are written without the leading blanks.
    fn find_unpadded(&self, name: &[u8]) -> Result<Option<usize>> {
        if !name.iter().all(|&byte| byte.is_ascii_digit() || byte == b'_') {
            return Ok(None);
        }
        for index in 0..self.by_key() {
            let own = self.bundle.info(index)?.name;
            if own.as_bytes().iter().filter(|&&byte| byte != b' ').eq(name) {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }
}

impl Container for Cache {
    fn format(&self) -> &'static str {
        if self.only_components { "tf-data-cache" } else { self.bundle.format() }
    }

    fn len(&self) -> Result<usize> {
        Ok(self.by_key() + self.components)
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        let Some(component) = self.component(index) else {
            return Ok(TensorInfo { group: Some("elements"), ..self.bundle.info(index)? });
        };
        let spec = self.stacked_spec(component)?;
        let unsupported = self.bundle.info(component)?.unsupported;
        let name = Name::new(component.to_string());
        let group = (!self.only_components).then_some("components");
        Ok(TensorInfo { group, unsupported, ..TensorInfo::new(name, spec) })
    }

    fn is_meant(&self, index: usize) -> Result<bool> {
        Ok(self.component(index).is_some())
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        let component = std::str::from_utf8(name).ok().and_then(|name| name.parse::<usize>().ok()).filter(|&c| c < self.components);
        match component {
            Some(component) => Ok(Some(self.by_key() + component)),
            None if self.only_components => Ok(None),
            None => match self.bundle.find(name)? {
                Some(found) => Ok(Some(found)),
                None => self.find_unpadded(name),
            },
        }
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        let Some(component) = self.component(index) else { return self.bundle.reader(index) };
        let spec = self.stacked_spec(component)?;
        let (mut places, mut regions) = (Vec::with_capacity(self.elements), Vec::with_capacity(self.elements));
        for element in 0..self.elements {
            let (found, place, region) = self.bundle.place(element * self.components + component)?;
            self.check_same(component, &spec, element, &found)?;
            places.push(place);
            regions.push(region);
        }
        Ok(Box::new(Stacked { bundle: &self.bundle, spec, places, regions }))
    }

    fn strings(&self, index: usize) -> Result<StoredStrings<'_>> {
        let Some(component) = self.component(index) else { return self.bundle.strings(index) };
        let spec = self.stacked_spec(component)?;
        let element = |element: usize| {
            let number = element * self.components + component;
            self.check_same(component, &spec, element, &self.bundle.info(number)?.spec)?;
            self.bundle.strings(number)
        };
        Chain::join(self.bundle.shards(), &component.to_string(), spec.shape().to_vec(), (0..self.elements).map(element))
    }

    fn heap_bytes(&self) -> u64 {
        self.bundle.heap_bytes()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.bundle.files()
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = self.bundle.facts();
        facts.insert("cached_elements".into(), json!(self.elements));
        facts.insert("cached_components".into(), json!(self.components));
        facts
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        if self.component(index).is_some() { Ok(Map::new()) } else { self.bundle.tensor_facts(index) }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.bundle.warnings();
        if !self.only_components {
            warnings.push(format!(
                "this is a tf.data cache of {} elements: each of the names 0 to {} stands for one component of all elements; `format` tf-data-cache lists only these",
                self.elements,
                self.components - 1
            ));
        }
        warnings
    }
}

/// One component of all elements, in rows scattered over the shards.
struct Stacked<'a> {
    bundle: &'a Bundle,
    spec: TensorSpec,
    places: Vec<ShardPlace>,
    regions: Vec<Region>,
}

impl fmt::Debug for Stacked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stacked").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl TensorReader for Stacked<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn byte_order(&self) -> ByteOrder {
        self.bundle.byte_order()
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let row = self.spec.row_bytes();
        let (mut at, mut rest) = (elements.start * self.spec.itemsize(), out);
        while !rest.is_empty() {
            context.check_cancelled()?;
            let (first, inside) = (memory_len(at / row), at % row);
            let place = self.places[first];
            // Adjacent rows are read together.
            let most = rest.len().min(context.chunk_bytes()) as u64;
            let mut len = row - inside;
            let mut rows = 1;
            while len < most
                && self
                    .places
                    .get(first + rows)
                    .is_some_and(|next| *next == ShardPlace { offset: place.offset + row * rows as u64, ..place })
            {
                len += row;
                rows += 1;
            }
            let len = memory_len(len.min(most));
            let (now, later) = rest.split_at_mut(len);
            self.bundle.read(place, inside, now, &context.calls)?;
            let (mut start, mut part) = (inside, &now[..]);
            for region in first.. {
                let (own, others) = part.split_at(part.len().min(memory_len(row - start)));
                context.record(region, start, own);
                if others.is_empty() {
                    break;
                }
                (start, part) = (0, others);
            }
            at += len as u64;
            rest = later;
        }
        Ok(())
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn check_unchanged(&self) -> Result<()> {
        self.bundle.shards().check_unchanged(self.places.iter().map(|place| place.shard))
    }

    fn fills_by_system_calls(&self) -> bool {
        true
    }

    fn heap_bytes(&self) -> u64 {
        (self.places.len() * (size_of::<ShardPlace>() + size_of::<Region>())) as u64
            + crate::reader::checksums::RegionChecksums::heap_bytes(self.regions.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_two_numbers() {
        assert_eq!(numbers(b"      12_ 3"), Some((12, 3)));
        assert_eq!(numbers(b"w_1"), None);
        assert_eq!(numbers(b"12"), None);
    }
}
