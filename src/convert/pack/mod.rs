//! Packs many tensors into one safetensors file, where bfloat16 and eight-bit floats keep their names. Start at [`pack`].

pub(crate) mod file;
pub(crate) mod records;

use std::path::Path;

use super::export::{Estimated, Export, Set, export, nothing_to_convert, vouch, with_offset};
use super::exported::{Exported, Skipped};
use crate::error::{Error, Result};
use crate::format::safetensors::{FileLayout, name_of};
use crate::options::method::Method;
use crate::options::{Options, Strings};
use crate::output::report::Report;
use crate::output::staging::file::{StagedFile, publish_all};
use crate::output::staging::hidden::ScratchDir;
use crate::output::staging::target::check_target;
use crate::source::opened::{Source, Tensor};
use crate::source::selection::Selection;
use crate::storage::paths::parent_of;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;
use crate::types::rows::Rows;
use crate::types::spec::TensorSpec;

use file::{ArrayOrigin, File, Planned, refused};
use records::{Columns, Entry, Filled};

/// Heap kept per tensor until the end, beside its name: a shape, a report, its entry in the header.
const TENSOR_HEAP: usize = 1 << 10;

/// Checks that the format can hold what `options` make of a tensor, as far as that is known before reading it.
///
/// # Errors
/// [`Error::BadRequest`] for a layout or a byte order that the format lacks, [`Error::Unsupported`] for a dtype.
pub fn check_packed(tensor: &Tensor, options: &Options) -> Result<()> {
    check_form(options)?;
    // Strings of records are split into arrays first.
    let is_split = tensor.is_of_records() && options.strings.peek() == Some(Strings::Offsets);
    if is_split && tensor.info().spec.dtype() == Dtype::String { tensor.check_supported() } else { check(tensor, options) }
}

fn check_form(options: &Options) -> Result<()> {
    if options.layout == Layout::F || options.asked_order() == Some(ByteOrder::Big) {
        return Err(Error::bad_request("safetensors files are in C order and little-endian"));
    }
    Ok(())
}

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
    let options = &options.resolved();
    check_form(options)?;
    let heap_bytes = tensors.iter().map(|tensor| TENSOR_HEAP + 4 * tensor.info().name.as_bytes().len()).sum::<usize>() as u64;
    let heap_bytes = heap_bytes.saturating_add(source.heap_bytes());
    let (mut planned, mut skipped, mut columns) = (Vec::new(), Vec::new(), Vec::<&Tensor>::new());
    for tensor in tensors {
        options.cancel.check()?;
        if tensor.is_of_records() {
            columns.push(tensor);
            continue;
        }
        let name = tensor.info().name.clone();
        let origin = ArrayOrigin::Tensor(tensor, rows);
        match check(tensor, options).and_then(|()| origin.spec(heap_bytes, options)) {
            Ok(spec) => planned.push(Planned { name: name.clone(), title: name.to_json(), origin, spec }),
            Err(Error::BadRequest(request)) => return Err(request.of_tensor(name).into()),
            Err(error @ Error::Unsupported { .. }) => {
                options.note_skipped(tensor.info().spec.dtype());
                let reason = tensor.info().unsupported.clone().unwrap_or_else(|| error.to_string());
                skipped.push(Skipped { name, reason });
            }
            Err(error) => return Err(error),
        }
    }
    // Check the target before reading anything for it.
    check_target(path, options.existing())?;
    source.check_not_own(path)?;
    let options = &options.clone().records(options.records.for_one(columns.len() == 1));
    let (stored, made): (Vec<&Tensor>, Vec<&Tensor>) = columns.into_iter().partition(|tensor| records::is_stored(tensor));
    let mut counted = Vec::new();
    for set in Set::of(&stored) {
        counted.extend(Columns::plan(set, (rows, heap_bytes), &mut skipped, options)?);
    }
    let mut packer = Packer { source, path, heap_bytes, planned, counted, skipped, scratch: None };
    if packer.planned.is_empty() && stored.is_empty() && made.len() == 1 {
        let columns = Set::of(&made).into_iter().next();
        let planned =
            columns.map(|set| Columns::plan_uncounted(set, (rows, heap_bytes), &mut packer.skipped, options)).transpose()?.flatten();
        match planned {
            Some(columns) if columns.len() > 1 => {}
            Some(columns) => return packer.write_one(columns, options),
            None => return Err(nothing_to_convert(source, &packer.skipped)),
        }
    }
    if made.is_empty() {
        options.check_applied()?;
    } else {
        let mut made = tensors.clone();
        made.retain(|tensor| tensor.is_of_records() && !records::is_stored(tensor));
        packer.make_arrays(&made, rows, options)?;
    }
    packer.write_all(options)
}

/// Bytes of room that [`pack`] temporarily needs beside the file, at most. Only arrays that a program or TensorFlow computes need
/// any, and only if there are several.
#[must_use]
pub fn packing_room(arrays: &[Estimated<'_>]) -> u64 {
    let is_alone = arrays.iter().map(|(_, estimates)| estimates.len()).sum::<usize>() == 1;
    let made = arrays.iter().filter(|(tensor, _)| !is_alone && tensor.is_of_records() && !records::is_stored(tensor));
    made.flat_map(|(_, estimates)| estimates).map(|estimate| estimate.nbytes).max().unwrap_or(0)
}

/// Checks, as [`pack`] does before it reads elements, that the file could get its name at `path`, and that there is room for it.
/// Returns the bytes of room that are needed, [those beside the file](packing_room) included.
///
/// # Errors
/// Those of [`check_write`](crate::dry_run::check_write); [`Error::Unsupported`] where the file cannot be laid out.
pub fn check_pack(arrays: &[Estimated<'_>], path: impl AsRef<Path>, options: &Options) -> Result<u64> {
    let path = path.as_ref();
    let Some((first, _)) = arrays.first() else { return Ok(0) };
    first.source().check_not_own(path)?;
    let staged = StagedFile::create(path, options.existing(), &options.calls())?;
    let mut entries = Vec::new();
    for (tensor, estimates) in arrays {
        for estimate in estimates {
            let spec = TensorSpec::new(estimate.dtype, estimate.shape.clone()).map_err(Error::bad_request)?;
            entries.push((format!("{}{}", tensor.info().name.to_json(), estimate.part.suffix()), spec));
        }
    }
    let entries: Vec<_> = entries.iter().map(|(title, spec)| (title.as_str(), spec.clone())).collect();
    let plan = FileLayout::new(&entries, &[]).map_err(|detail| not_laid_out(path, detail))?;
    let needed = plan.len.saturating_add(packing_room(arrays));
    staged.check_room(needed)?;
    staged.check_length(plan.len)?;
    Ok(needed)
}

fn not_laid_out(path: &Path, detail: String) -> Error {
    Error::Unsupported { what: format!("writing {}", path.display()), detail }
}

/// Refuses tensors whose dtype the format lacks.
fn check(tensor: &Tensor, options: &Options) -> Result<()> {
    tensor.check_supported()?;
    let info = tensor.info();
    let dtype = options.cast.unwrap_or(info.spec.dtype());
    match &info.item {
        Some(item) => Err(refused(item)),
        None if info.spec.dtype() == Dtype::String => Err(refused(Dtype::String)),
        None if name_of(dtype).is_none() => Err(refused(dtype)),
        None => Ok(()),
    }
}

/// A safetensors file that is being made.
struct Packer<'a, 'b> {
    source: &'b Source,
    path: &'b Path,
    heap_bytes: u64,
    planned: Vec<Planned<'a>>,
    /// Columns of records, which the report lists after the other tensors.
    counted: Vec<Columns<'a>>,
    skipped: Vec<Skipped>,
    /// The directory of arrays that were made for the file.
    scratch: Option<ScratchDir>,
}

impl<'a> Packer<'a, '_> {
    /// Several computed tensors become arrays in a private folder beside the output first: how many rows they have is known only
    /// after computing them, which is done once.
    fn make_arrays(&mut self, made: &Selection, rows: Option<Rows>, options: &Options) -> Result<()> {
        let scratch = ScratchDir::create_in(parent_of(self.path), &options.cancel)?;
        let dir = scratch.path().join("arrays");
        self.scratch = Some(scratch);
        let Export { outputs, skipped } = export(made, rows, dir, options)?;
        self.skipped.extend(skipped);
        for Exported { name, path, report } in outputs {
            if report.dtype == Dtype::String || name_of(report.dtype).is_none() {
                remove(&path)?;
                self.skipped.push(Skipped { name, reason: refused(report.dtype).to_string() });
                continue;
            }
            let title = format!("{}{}", name.to_json(), report.part.suffix());
            let spec = TensorSpec::new(report.dtype, report.shape.clone()).map_err(Error::bad_request)?;
            self.planned.push(Planned { name, title, origin: ArrayOrigin::Made(path, Box::new(report)), spec });
        }
        Ok(())
    }

    fn begin(&self, options: &Options) -> Result<StagedFile> {
        StagedFile::create(self.path, options.existing(), &options.calls())
    }

    fn layout(&self, entries: &[Entry]) -> Result<FileLayout> {
        let planned = self.planned.iter().map(|one| (one.title.as_str(), one.spec.clone()));
        let entries: Vec<(&str, TensorSpec)> =
            planned.chain(entries.iter().map(|entry| (entry.title.as_str(), entry.spec.clone()))).collect();
        FileLayout::new(&entries, &[]).map_err(|detail| self.refused(detail))
    }

    fn refused(&self, detail: String) -> Error {
        not_laid_out(self.path, detail)
    }

    fn write_all(mut self, options: &Options) -> Result<Export> {
        let staged = self.begin(options)?;
        let method = Method::to_copy(staged.file(), options.method)?;
        let mut file = File { staged: &staged, method, dirty: 0, heap_bytes: self.heap_bytes };
        let (plan, exported) = self.write_columns(&file, options)?;
        let total_bytes = Some(plan.len - plan.header.len() as u64);
        let mut done_bytes = exported.iter().map(|output| output.report.nbytes).sum();
        // Arrays that were made come first: copying them frees their space.
        let is_made = |one: &Planned<'_>| matches!(one.origin, ArrayOrigin::Made(..));
        let mut order: Vec<usize> = (0..self.planned.len()).collect();
        order.sort_by_key(|&i| (!is_made(&self.planned[i]), plan.offsets[i]));
        let mut reports = Vec::new();
        reports.resize_with(self.planned.len(), || None);
        for i in order {
            let one = &self.planned[i];
            reports[i] = Some(file.write(one, plan.offsets[i], &with_offset(options, done_bytes, total_bytes))?);
            if let ArrayOrigin::Made(path, _) = &one.origin {
                remove(path)?;
            }
            done_bytes += one.spec.nbytes();
        }
        drop(self.scratch.take());
        file.end(&plan)?;
        let written = |(one, report): (&Planned<'_>, Option<Report>)| {
            Some(Exported { name: one.name.clone(), path: self.path.to_owned(), report: report? })
        };
        let outputs = self.planned.iter().zip(reports).filter_map(written).chain(exported).collect();
        self.publish(staged, outputs, options)
    }

    /// Lays out the file and writes columns of records to their places. If one turns out not to be an array, its place would be a
    /// hole. Then the file is laid out again and the other columns are written once more.
    fn write_columns(&mut self, file: &File<'_>, options: &Options) -> Result<(FileLayout, Vec<Exported>)> {
        loop {
            if self.planned.is_empty() && self.counted.is_empty() {
                return Err(nothing_to_convert(self.source, &self.skipped));
            }
            let entries = self.counted.iter().map(|columns| columns.entries(options)).collect::<Result<Vec<_>>>()?.concat();
            let plan = self.layout(&entries)?;
            file.begin(&plan, self.planned.iter().filter_map(Planned::made_bytes))?;
            let total_bytes = Some(plan.len - plan.header.len() as u64);
            let (mut at, mut exported, mut left, mut is_final) = (self.planned.len(), Vec::new(), Vec::new(), true);
            for columns in std::mem::take(&mut self.counted) {
                let starts = &plan.offsets[at..at + columns.len()];
                at += starts.len();
                let done = exported.iter().map(|output: &Exported| output.report.nbytes).sum();
                match columns.fill(file, starts, &mut self.skipped, &with_offset(options, done, total_bytes))? {
                    Filled::Made(columns, reports) => {
                        let own = columns.entries(options)?.into_iter().zip(reports);
                        exported.extend(own.map(|(entry, report)| Exported { name: entry.name, path: self.path.to_owned(), report }));
                        left.push(columns);
                    }
                    Filled::Fewer(fewer) => {
                        is_final = false;
                        left.extend(fewer);
                    }
                }
            }
            self.counted = left;
            if is_final {
                return Ok((plan, exported));
            }
        }
    }

    /// Writes the only array behind room for a header: of columns that are read once and whose number of rows is unknown.
    fn write_one(mut self, columns: Columns<'a>, options: &Options) -> Result<Export> {
        options.check_applied()?;
        let staged = self.begin(options)?;
        let method = Method::to_copy(staged.file(), options.method)?;
        let file = File { staged: &staged, method, dirty: 0, heap_bytes: self.heap_bytes };
        let start = self.layout(&columns.longest(options)?)?.header.len() as u64;
        let Some((entry, report)) = columns.fill_end(&file, start, &mut self.skipped, options)? else {
            return Err(nothing_to_convert(self.source, &self.skipped));
        };
        let name = entry.name.clone();
        let plan = self.layout(&[entry])?.padded(start).map_err(|detail| self.refused(detail))?;
        file.set_len(plan.len)?;
        file.end(&plan)?;
        let outputs = vec![Exported { name, path: self.path.to_owned(), report }];
        self.publish(staged, outputs, options)
    }

    fn publish(self, staged: StagedFile, mut outputs: Vec<Exported>, options: &Options) -> Result<Export> {
        options.cancel.check()?;
        vouch(self.source, &mut outputs, options);
        publish_all(vec![staged])?;
        Ok(Export { outputs, skipped: self.skipped })
    }
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(Error::io("remove", path))
}
