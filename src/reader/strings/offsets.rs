//! Strings as two arrays: all bytes, and where each element starts.

use std::ops::Range;
use std::sync::Arc;

use byteorder::{ByteOrder as _, LittleEndian};

use super::Strings;
use crate::error::Result;
use crate::format::crc::Checksum;
use crate::reader::checksums::Region;
use crate::reader::tensor_reader::{ReadContext, StoredRun, TensorReader};
use crate::types::dtype::Dtype;
use crate::types::spec::TensorSpec;

/// The concatenated bytes of all elements, as stored: `uint8`.
#[derive(Debug)]
pub(crate) struct Values<'a> {
    strings: Arc<Strings<'a>>,
    spec: TensorSpec,
}

impl<'a> Values<'a> {
    pub(crate) fn new(strings: Arc<Strings<'a>>) -> Result<Self> {
        let spec = TensorSpec::new(Dtype::UInt8, vec![strings.selected_bytes()])?;
        Ok(Self { strings, spec })
    }
}

impl TensorReader for Values<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn read(&self, bytes: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        self.strings.read_data(self.strings.scan.selected_data.start + bytes.start, out, context)
    }

    fn regions(&self) -> &[Region] {
        self.strings.regions()
    }

    fn has_stored_runs(&self) -> bool {
        true
    }

    fn stored_run(&self, _: u64) -> Result<Option<StoredRun>> {
        let Strings { stored, scan, data: region, .. } = &*self.strings;
        let Some(file) = stored.file()? else { return Ok(None) };
        let start = scan.selected_data.start;
        let run = 0..self.spec.elements();
        // If elements are skipped, the run starts after the region does.
        let covering = (start == 0).then_some(0);
        Ok(Some(StoredRun { elements: run, file, path: Arc::clone(self.strings.path()), offset: region.offset + start, region: covering }))
    }

    fn fills_by_system_calls(&self) -> bool {
        !self.strings.regions().is_empty()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.strings.check_unchanged()
    }

    fn heap_bytes(&self) -> u64 {
        self.strings.heap_bytes()
    }
}

/// The start of each element in the concatenated bytes, and the end of the last: `int64`.
#[derive(Debug)]
pub(crate) struct Offsets<'a> {
    strings: Arc<Strings<'a>>,
    spec: TensorSpec,
    /// The lengths were verified when they were read; this region is empty.
    verified: [Region; 1],
}

impl<'a> Offsets<'a> {
    pub(crate) fn new(strings: Arc<Strings<'a>>) -> Result<Self> {
        let elements: u64 = strings.shape().iter().product();
        let spec = TensorSpec::new(Dtype::Int64, vec![elements + 1])?;
        let verified = [Region { nbytes: 0, checksum: Checksum::Crc32c(0), ..strings.data.clone() }];
        Ok(Self { strings, spec, verified })
    }
}

impl TensorReader for Offsets<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        context.check_cancelled()?;
        let mut lengths = self.strings.lengths_from(elements.start, &context.calls)?;
        for place in out.chunks_exact_mut(size_of::<i64>()) {
            let offset = lengths.data_at().saturating_sub(self.strings.scan.selected_data.start);
            LittleEndian::write_u64(place, offset);
            lengths.next_length()?;
        }
        Ok(())
    }

    fn regions(&self) -> &[Region] {
        if self.strings.regions().is_empty() { &[] } else { &self.verified }
    }

    fn check_unchanged(&self) -> Result<()> {
        self.strings.check_unchanged()
    }

    fn heap_bytes(&self) -> u64 {
        self.strings.heap_bytes()
    }
}
