//! An array that goes out front to back, to a pipe or whatever else takes bytes.

use std::io::Write;
use std::path::Path;

use super::{Job, Lent, Meter, Outcome};
use crate::error::{Error, Result};
use crate::format::npy::Header;
use crate::method::Method;
use crate::options::Options;
use crate::plan::Memory;
use crate::source::Ledger;
use crate::spec::memory_len;

/// What messages call where the bytes go.
pub(crate) const TARGET: &str = "the stream";

/// The error for bytes that nobody takes.
pub(crate) fn write_error(error: std::io::Error) -> Error {
    // That the other side has gone is a failure here: the array is not complete.
    let source = if error.kind() == std::io::ErrorKind::BrokenPipe { std::io::Error::other(error.to_string()) } else { error };
    Error::Io { action: "write the array to", path: Path::new(TARGET).to_owned(), source }
}

/// Writes what stands before the elements.
pub(crate) fn write_header(header: &Header, out: &mut dyn Write) -> Result<()> {
    out.write_all(&header.encode(header.data_start())).map_err(write_error)
}

impl Job<'_> {
    /// Refuses an array that cannot be written front to back.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub(crate) fn check_stream(&self) -> Result<()> {
        if self.is_turned() {
            let detail = "an array whose order of elements changes cannot be streamed: write it to a file, or keep the order that the source has (--layout)";
            return Err(Error::bad_request(detail));
        }
        Ok(())
    }

    /// Writes header and elements to `out`, slice after slice, and compares the checksums at the end.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where elements are read in one order and written in the other; those of reading; [`Error::Io`].
    pub(crate) fn stream(&self, out: &mut dyn Write, options: &Options) -> Result<Outcome> {
        self.check_stream()?;
        let plan = self.plan(Memory::Buffers, options)?;
        write_header(&self.header, out)?;
        let ledger = options.verify.then(|| Ledger::new(self.reader.regions()));
        let meter = Meter::new(&plan.shares, options);
        let lent = &mut Lent::new(&plan.shares, ledger.as_ref(), options);
        let mut buffer = vec![0; memory_len(plan.slice_bytes())];
        let elements = self.elements();
        let most = plan.slice_bytes() / self.spec.itemsize().max(1);
        // Whole rows of chunks, if they fit, so that each chunk is decoded once.
        let band = self.reader.chunks().and_then(|chunks| chunks.first()?.checked_mul(self.whole.row_elements()));
        let step = band.filter(|&band| band > 0 && band <= most).map_or(most, |band| most / band * band).max(1);
        let mut at = elements.start;
        while at < elements.end {
            options.cancel.check()?;
            let end = (at - at % step).saturating_add(step).min(elements.end);
            let bytes = &mut buffer[..memory_len((end - at) * self.spec.itemsize())];
            self.read(at..end, bytes, lent)?;
            out.write_all(bytes).map_err(write_error)?;
            meter.add(bytes.len() as u64, 0);
            at = end;
        }
        let verified = self.verified(ledger.as_ref())?;
        out.flush().map_err(write_error)?;
        Ok(Outcome { method: Method::Portable, verified, peak_memory: plan.shares.fixed_bytes })
    }
}
