//! Packs many tensors into one safetensors file, where bfloat16 and eight-bit floats keep their names. Start at [`pack`].

use std::path::Path;

use super::batch::Batch;
use super::columns::{Attempt, Columns};
use super::destination::Packed;
use super::export::export;
use super::exported::{Export, Exported, Skipped, nbytes_of, nothing_to_convert, vouch};
use super::many::make;
use super::planned::{ArrayOrigin, PlannedArray, plan};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::safetensors::{FileLayout, name_of};
use crate::options::Options;
use crate::options::request::{Form, Request};
use crate::os;
use crate::output::part::Part;
use crate::output::sink;
use crate::output::staging::file::{StagedFile, publish_all};
use crate::output::staging::hidden::ScratchDir;
use crate::output::staging::target::check_target;
use crate::records::pass::array::RecordArray;
use crate::source::opened::{RecordColumn, Source, Tensor};
use crate::source::selection::Selection;
use crate::storage::paths::parent_of;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;
use crate::types::name::Name;
use crate::types::rows::Rows;
use crate::types::spec::TensorSpec;

/// Heap kept per tensor until the end, beside its name: a shape, a report, its entry in the header.
const TENSOR_HEAP: usize = 1 << 10;

/// Writes `tensors`, or `rows` of each, into one safetensors file at `path`, which appears complete and synced or not at all.
/// Tensors that the format cannot hold are skipped and listed: strings, handles, dtypes without a name in the format.
///
/// The file is laid out before the first byte is written. Larger elements come first, as in the format's own library, so all are
/// aligned.
///
/// # Errors
/// Those of [`Converter::write`](crate::Converter::write); [`Error::BadRequest`] for a layout or a byte order that the format lacks;
/// [`Error::Unsupported`] when there is nothing to write.
pub fn pack(tensors: &Selection, rows: Option<Rows>, path: impl AsRef<Path>, options: &Options) -> Result<Export> {
    let (source, path) = (tensors.source(), path.as_ref());
    check_form(&options.form)?;
    let heap_bytes = tensors.iter().map(|tensor| TENSOR_HEAP + 4 * tensor.info().name.as_bytes().len()).sum::<usize>() as u64;
    let (columns, others): (Vec<&Tensor>, Vec<&Tensor>) = tensors.iter().partition(|tensor| tensor.is_of_records());
    let request = &options.request(rows, heap_bytes.saturating_add(source.heap_bytes())).for_columns(columns.len() == 1);
    let mut skipped = Vec::new();
    let accept = |tensor: &Tensor| check(tensor, &request.form);
    let planned = plan(others, request, &mut skipped, accept, |_, _| Ok(()))?;
    // Check the target before reading anything for it.
    check_target(path, request.run.existing)?;
    source.check_not_own(path)?;
    let (stored, computed): (Vec<&Tensor>, Vec<&Tensor>) = columns.into_iter().partition(|tensor| is_stored(tensor));
    let mut packer = Packer { source, path, request, planned, columns: Vec::new(), skipped, scratch: None };
    for columns in packer.plan_columns(&stored)? {
        packer.columns.extend(columns.counted(&mut packer.skipped)?);
    }
    if let (true, true, [only]) = (packer.planned.is_empty(), stored.is_empty(), &computed[..]) {
        match packer.plan_columns(&[only])?.pop() {
            None => return Err(nothing_to_convert(source, &packer.skipped)),
            Some(columns) if columns.pass.arrays.len() == 1 => {
                options.check_applied()?;
                return packer.write_one(columns);
            }
            Some(_) => {}
        }
    }
    if computed.is_empty() {
        options.check_applied()?;
    } else {
        let mut made = tensors.clone();
        made.retain(|tensor| tensor.is_of_records() && !is_stored(tensor));
        packer.make_arrays(&made, options)?;
    }
    packer.write_all()
}

/// Refuses what the format cannot express.
///
/// # Errors
/// [`Error::BadRequest`].
pub(crate) fn check_form(form: &Form) -> Result<()> {
    if form.layout == Layout::F || form.byte_order.peek() == Some(ByteOrder::Big) {
        return Err(BadRequest::PackedForm.into());
    }
    Ok(())
}

/// Refuses tensors whose dtype the format lacks.
///
/// # Errors
/// [`Error::Unsupported`].
pub(crate) fn check(tensor: &Tensor, form: &Form) -> Result<()> {
    tensor.check_supported()?;
    let info = tensor.info();
    match &info.item {
        Some(item) => Err(refused(item)),
        None if info.spec.dtype() == Dtype::String => Err(refused(Dtype::String)),
        None => check_dtype(form.cast.unwrap_or(info.spec.dtype())),
    }
}

fn check_dtype(dtype: Dtype) -> Result<()> {
    if dtype == Dtype::String || name_of(dtype).is_none() { Err(refused(dtype)) } else { Ok(()) }
}

fn refused(what: impl std::fmt::Display) -> Error {
    Error::Unsupported { what: format!("{what} in safetensors"), detail: "the format has no dtype for it".into() }
}

pub(crate) fn not_laid_out(path: &Path, detail: String) -> Error {
    Error::Unsupported { what: format!("writing {}", path.display()), detail }
}

/// The name of an array in the file.
pub(crate) fn title(name: &Name, part: Part) -> String {
    format!("{}{}", name.to_json(), part.suffix())
}

/// Whether `tensor` is a column of records in files. A second pass over these is cheap, so the first one can count them.
pub(crate) fn is_stored(tensor: &Tensor) -> bool {
    tensor.column().is_some_and(|RecordColumn { records, set, .. }| {
        let set = records.set(set);
        set.can_be_read_again() && !set.is_made()
    })
}

/// A safetensors file that is being made.
struct Packer<'a, 'b> {
    source: &'b Source,
    path: &'b Path,
    request: &'b Request,
    planned: Vec<PlannedArray<'a>>,
    /// Columns of records, and the number of rows of each of their arrays. These were counted, so that the arrays can be written
    /// straight to their places.
    columns: Vec<(Columns<'a>, Vec<u64>)>,
    skipped: Vec<Skipped>,
    /// Holds arrays that are made first.
    scratch: Option<ScratchDir>,
}

/// An array as the file lists it: its name there, its dtype and its shape.
type Entry = (String, TensorSpec);

impl<'a> Packer<'a, '_> {
    /// Columns of records that the format can hold.
    fn plan_columns(&mut self, tensors: &[&'a Tensor]) -> Result<Vec<Columns<'a>>> {
        let columns = Columns::plan_all(tensors, self.request, &mut self.skipped)?;
        let check = |array: &RecordArray| check_dtype(array.dtype);
        columns.into_iter().filter_map(|columns| columns.refuse(check, &mut self.skipped).transpose()).collect()
    }

    /// Columns of computed records become arrays in a private folder beside the output first: how many rows they have is known only
    /// after computing them, which is done once.
    fn make_arrays(&mut self, tensors: &Selection, options: &Options) -> Result<()> {
        let scratch = ScratchDir::create_in(parent_of(self.path), &self.request.run.cancel)?;
        let dir = scratch.path().join("arrays");
        self.scratch = Some(scratch);
        let Export { outputs, skipped } = export(tensors, self.request.rows, dir, options)?;
        self.skipped.extend(skipped);
        for Exported { name, path, report } in outputs {
            match check_dtype(report.dtype) {
                Ok(()) => self.planned.push(PlannedArray::made(name, path, report)?),
                Err(reason) => {
                    std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                    self.skipped.push(Skipped { name, reason: reason.to_string() });
                }
            }
        }
        Ok(())
    }

    fn write_all(mut self) -> Result<Export> {
        let staged = self.begin()?;
        let known = self.planned.iter().try_fold(0u64, |sum, array| sum.checked_add(array.nbytes));
        let mut file = Packed::new(&staged, self.request.run.method, known.filter(|_| self.columns.is_empty()))?;
        let batch = Batch::new(&file, self.request)?;
        let (layout, columns) = self.write_columns(&file)?;
        file.starts = layout.offsets[..self.planned.len()].to_vec();
        let total_bytes = Some(layout.len - layout.header.len() as u64);
        let mut outputs = make(&self.planned, &batch, &file, (nbytes_of(&columns), total_bytes), &mut self.skipped)?;
        outputs.extend(columns);
        drop(self.scratch.take());
        self.publish(staged, &layout, outputs)
    }

    /// Lays out the file and writes columns of records to their places. If one turns out not to be an array, its place would be a
    /// hole. Then the file is laid out again and the other columns are written once more.
    fn write_columns(&mut self, file: &Packed<'_>) -> Result<(FileLayout, Vec<Exported>)> {
        loop {
            if self.planned.is_empty() && self.columns.is_empty() {
                return Err(nothing_to_convert(self.source, &self.skipped));
            }
            let entries = self.columns.iter().map(|(columns, rows)| entries(columns, rows)).collect::<Result<Vec<_>>>()?;
            let layout = self.layout(&entries.concat())?;
            self.reserve(file, &layout)?;
            let total_bytes = Some(layout.len - layout.header.len() as u64);
            let (mut starts, mut outputs, mut is_final) = (&layout.offsets[self.planned.len()..], Vec::<Exported>::new(), true);
            for (columns, rows) in std::mem::take(&mut self.columns) {
                self.request.run.progress.count_from(nbytes_of(&outputs), total_bytes);
                let (own, others) = starts.split_at(rows.len());
                starts = others;
                let places: Vec<_> = own.iter().zip(&rows).map(|(&start, &rows)| file.region(start, Some(rows))).collect();
                let arrays = columns.arrays();
                match columns.make(&places, &mut self.skipped)? {
                    Attempt::Once(reports, left) => {
                        is_final &= reports.iter().all(Option::is_some);
                        let kept = rows.iter().zip(&reports).filter(|(_, report)| report.is_some()).map(|(&rows, _)| rows).collect();
                        self.columns.extend(left.map(|left| (left, kept)));
                        let written = arrays.into_iter().zip(reports).filter_map(|((name, _), report)| Some((name, report?)));
                        outputs.extend(written.map(|(name, report)| Exported { name, path: self.path.to_owned(), report }));
                    }
                    Attempt::Again(left) => {
                        is_final = false;
                        self.columns.extend(left.map(|left| left.counted(&mut self.skipped)).transpose()?.flatten());
                    }
                }
            }
            if is_final {
                return Ok((layout, outputs));
            }
        }
    }

    /// Writes the only array behind room for a header: of columns that are read once and whose number of rows is unknown.
    fn write_one(mut self, columns: Columns<'a>) -> Result<Export> {
        let staged = self.begin()?;
        let file = Packed::new(&staged, self.request.run.method, None)?;
        // The longest header is that for the most rows.
        let most_rows: Vec<u64> = columns.pass.arrays.iter().map(|array| i64::MAX.unsigned_abs() / array.written_row().max(1)).collect();
        let start = self.layout(&entries(&columns, &most_rows)?)?.header.len() as u64;
        let arrays = columns.arrays();
        let reports = match columns.make(&[file.region(start, None)], &mut self.skipped)? {
            Attempt::Once(reports, _) => reports,
            Attempt::Again(_) => Vec::new(),
        };
        let Some(((name, part), report)) = arrays.into_iter().zip(reports.into_iter().flatten()).next() else {
            return Err(nothing_to_convert(self.source, &self.skipped));
        };
        let spec = TensorSpec::new(report.dtype, report.shape.clone())?;
        let layout = self.layout(&[(title(&name, part), spec)])?.padded(start).map_err(|detail| not_laid_out(self.path, detail))?;
        staged.file().set_len(layout.len).map_err(failed(&staged, "resize", layout.len))?;
        let outputs = vec![Exported { name, path: self.path.to_owned(), report }];
        self.publish(staged, &layout, outputs)
    }

    fn begin(&self) -> Result<StagedFile> {
        StagedFile::create(self.path, self.request.run.existing, &self.request.run.calls)
    }

    fn layout(&self, entries: &[Entry]) -> Result<FileLayout> {
        let planned: Vec<Entry> = self.planned.iter().map(|array| (title(&array.name, array.part), array.spec.clone())).collect();
        let entries: Vec<(&str, TensorSpec)> = planned.iter().chain(entries).map(|(title, spec)| (title.as_str(), spec.clone())).collect();
        FileLayout::new(&entries, &[]).map_err(|detail| not_laid_out(self.path, detail))
    }

    /// Gives the file its length, if the disk has room for it. Arrays that were made before free their space once they are copied.
    fn reserve(&self, file: &Packed<'_>, layout: &FileLayout) -> Result<()> {
        let (staged, file) = (file.staged, file.staged.file());
        // Frees the space of an earlier layout.
        file.set_len(0).map_err(failed(staged, "resize", 0))?;
        let made = self.planned.iter().filter(|array| matches!(array.origin, ArrayOrigin::Made(..))).map(|array| array.nbytes);
        let (all, largest) = made.fold((0u64, 0), |(all, largest), bytes| (all + bytes, bytes.max(largest)));
        let asked = layout.len.saturating_sub(all).saturating_add(largest);
        if let Some(free) = os::free_bytes(file.file()).filter(|&free| free < asked) {
            return Err(Error::Limit { what: format!("disk space for {}", self.path.display()), asked, allowed: Some(free) });
        }
        file.set_len(layout.len).map_err(failed(staged, "resize", layout.len))
    }

    /// Writes the header last, syncs the file and gives it its name.
    fn publish(self, staged: StagedFile, layout: &FileLayout, mut outputs: Vec<Exported>) -> Result<Export> {
        staged.file().write_at(&layout.header, 0).map_err(failed(&staged, "write", layout.header.len() as u64))?;
        staged.file().sync_all().map_err(failed(&staged, "sync", layout.len))?;
        self.request.run.cancel.check()?;
        vouch(self.source, &mut outputs, self.request);
        publish_all(vec![staged])?;
        Ok(Export { outputs, skipped: self.skipped })
    }
}

fn failed(staged: &StagedFile, action: &'static str, bytes: u64) -> impl FnOnce(std::io::Error) -> Error {
    sink::write_error(staged.file(), staged.target(), action, bytes)
}

/// The entries of columns with so many rows.
fn entries(columns: &Columns<'_>, rows: &[u64]) -> Result<Vec<Entry>> {
    let entry = |(array, &rows): (&RecordArray, &u64)| {
        let spec = TensorSpec::new(array.dtype, array.header(rows).shape)?;
        Ok((title(columns.name(array), array.part), spec))
    };
    columns.pass.arrays.iter().zip(rows).map(entry).collect()
}
