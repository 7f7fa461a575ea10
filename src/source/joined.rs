//! Joins several sources along axis 0 of their tensors. The result is a `Container`, so later stages need no special case.

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::container::{Container, TensorInfo};
use super::opened::{Source, Tensor};
use super::origin::Origin;
use crate::error::request::BadRequest;
use crate::error::texts::ShapeText;
use crate::error::{Error, Result};
use crate::format::meta_graph::Signature;
use crate::plan::grid::{ChunkGrid, Unit};
use crate::reader::checksums::Region;
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::{ReadContext, StoredRun, TensorReader};
use crate::records::container::RecordContainer;
use crate::types::byte_order::ByteOrder;
use crate::types::layout::Layout;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Joins sources: records to records, other tensors to those with the same name.
///
/// # Errors
/// [`Error::BadRequest`] for fewer than two sources, and for records mixed with other sources; [`Error::Unsupported`] for records
/// that cannot continue each other.
pub(crate) fn join(mut parts: Vec<Source>) -> Result<Box<dyn Container>> {
    if let [] | [_] = &parts[..] {
        let only = parts.first().map(|part| part.path().to_owned());
        let are_files_joined = parts.first().is_some_and(|part| part.container().files().len() > 1);
        return Err(BadRequest::NothingToJoin { only, are_files_joined }.into());
    }
    let lost: Vec<String> = parts.iter().flat_map(|part| part.missing_files().to_vec()).collect();
    let take = |part: &mut Source| {
        if let Some(container) = part.container_mut() {
            return Ok(container.take_records());
        }
        Err(Error::from(BadRequest::StillInUse { path: part.path().to_owned() }))
    };
    let records: Vec<Option<RecordContainer>> = parts.iter_mut().map(take).collect::<Result<_>>()?;
    if records.iter().all(Option::is_none) {
        return Ok(Box::new(Concat::new(parts)?));
    }
    match records.iter().position(Option::is_none) {
        Some(other) => {
            let [path, other] = [&parts[other], &parts[usize::from(other == 0)]].map(|part| part.path().to_owned());
            Err(BadRequest::OnlyOneOfRecords { path, other }.into())
        }
        None => Ok(Box::new(RecordContainer::join(records.into_iter().flatten().collect())?.with_lost(lost))),
    }
}

/// The tensors of the first source, each continued by those with the same name in the others. If every source selects only one by
/// default, its name does not matter. A tensor that does not fit or is missing somewhere is listed as such; others still work.
#[derive(Debug)]
pub(crate) struct Concat {
    parts: Vec<Source>,
    tensors: Vec<Joined>,
}

/// A tensor of several sources.
#[derive(Debug)]
struct Joined {
    info: TensorInfo,
    /// Its index in every part; empty if the parts do not fit together.
    numbers: Vec<usize>,
    /// Whether it is selected by default.
    is_meant: bool,
}

impl Joined {
    /// A tensor that cannot be joined.
    fn refused(tensor: &Tensor, (what, detail): (String, String)) -> Result<Self> {
        let is_meant = tensor.source().container().is_meant(tensor.index())?;
        let unsupported = Some(format!("{what}: {detail}"));
        Ok(Self { info: TensorInfo { unsupported, ..tensor.info().clone() }, numbers: Vec::new(), is_meant })
    }
}

impl Concat {
    fn new(parts: Vec<Source>) -> Result<Self> {
        let only: Vec<Option<usize>> = parts
            .iter()
            .map(|part| match &part.select::<&[u8]>(&[])?[..] {
                [only] => Ok(Some(only.index())),
                _ => Ok(None),
            })
            .collect::<Result<_>>()?;
        let only: Option<Vec<usize>> = only.into_iter().collect();
        let mut tensors = Vec::new();
        // Indices of the tensors in each other part that continue one of the first.
        let mut continued: Vec<HashSet<usize>> = vec![HashSet::new(); parts.len()];
        for tensor in parts[0].tensors() {
            let tensor = tensor?;
            let alone = only.as_ref().filter(|only| only[0] == tensor.index());
            let mut own = Vec::with_capacity(parts.len());
            for (at, part) in parts.iter().enumerate() {
                let number = alone.map_or_else(|| same_tensor(part, tensor.info()), |only| Ok(Some(only[at])))?;
                continued[at].extend(number);
                own.push(number);
            }
            tensors.push(match joined(&parts, &tensor, &own) {
                Ok((info, numbers)) => {
                    let is_meant = parts[0].container().is_meant(tensor.index())?;
                    Joined { info, numbers, is_meant }
                }
                Err(Error::Unsupported { what, detail }) => Joined::refused(&tensor, (what, detail))?,
                Err(other) => return Err(other),
            });
        }
        let mut names: HashSet<Vec<u8>> = tensors.iter().map(|joined| joined.info.name.as_bytes().to_vec()).collect();
        for (part, continued) in parts.iter().zip(&continued).skip(1) {
            for tensor in part.tensors() {
                let tensor = tensor?;
                if !continued.contains(&tensor.index()) && names.insert(tensor.info().name.as_bytes().to_vec()) {
                    tensors.push(Joined::refused(&tensor, missing(&tensor, &parts[0]))?);
                }
            }
        }
        Ok(Self { parts, tensors })
    }
}

/// The tensor in `part` that continues `first`: the one with the same name, else with the same alias.
fn same_tensor(part: &Source, first: &TensorInfo) -> Result<Option<usize>> {
    let names = [Some(first.name.as_bytes()), first.alias.as_deref().map(str::as_bytes)];
    for name in names.into_iter().flatten() {
        if let Some(index) = part.find(name)? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// The reason that `without` lacks `tensor`.
fn missing(tensor: &Tensor, without: &Source) -> (String, String) {
    let what = format!("joining {} of {}", tensor.info().name, tensor.source().path().display());
    (what, format!("{} has no such tensor", without.path().display()))
}

/// Joins `tensor` of the first part with the tensors of these indices in the others.
fn joined(parts: &[Source], tensor: &Tensor, own: &[Option<usize>]) -> Result<(TensorInfo, Vec<usize>)> {
    let mut info = tensor.info().clone();
    if let Some(whole) = &info.part_of {
        let detail = format!("it is a part of {whole}, which is ragged or sparse: parts joined one by one have no meaning");
        return Err(Error::Unsupported { what: format!("joining {}", info.name), detail });
    }
    let mut numbers = Vec::with_capacity(parts.len());
    let (mut rows, mut axes) = (Some(0u64), lengths(&info));
    for (at, (part, number)) in parts.iter().zip(own).enumerate() {
        let Some(number) = *number else {
            let (what, detail) = missing(tensor, part);
            return Err(Error::Unsupported { what, detail });
        };
        let own = part.at(number)?;
        info.unsupported = info.unsupported.take().or_else(|| own.info().unsupported.clone());
        if at > 0 {
            check_fits(tensor, &own)?;
            info.lost.extend_from_slice(&own.info().lost);
        }
        info.has_rank &= own.info().has_rank;
        let next = lengths(own.info());
        rows = match (rows, next.first().copied().flatten()) {
            (Some(rows), Some(more)) => Some(rows.checked_add(more).ok_or(BadRequest::TooMany { what: "rows" })?),
            // The number is known only after computing the tensor.
            _ => None,
        };
        axes.iter_mut().zip(next).for_each(|(axis, other)| *axis = axis.or(other));
        numbers.push(number);
    }
    if let Some(axis) = axes.first_mut() {
        *axis = rows;
    }
    info.unknown_axes = (0..axes.len()).filter(|&axis| axes[axis].is_none()).collect();
    let shape = axes.iter().map(|axis| axis.unwrap_or(0)).collect();
    info.spec = TensorSpec::new(info.spec.dtype(), shape)?;
    Ok((info, numbers))
}

/// The lengths of all axes, including an item's bytes, where known.
fn lengths(info: &TensorInfo) -> Vec<Option<u64>> {
    let known = |(axis, &length): (usize, &u64)| (!info.unknown_axes.contains(&axis)).then_some(length);
    info.spec.shape().iter().enumerate().map(known).collect()
}

/// Checks that one tensor can continue another.
fn check_fits(first: &Tensor, other: &Tensor) -> Result<()> {
    let (one, next) = (first.info(), other.info());
    let refused = |detail: String| {
        let what =
            format!("joining {} of {} to {} of {}", next.name, other.source().path().display(), one.name, first.source().path().display());
        Err(Error::Unsupported { what, detail })
    };
    let has_rank = one.has_rank && next.has_rank;
    if has_rank && (one.shape().is_empty() || next.shape().is_empty()) {
        return refused("a scalar has no axis 0".into());
    }
    if one.spec.dtype() != next.spec.dtype() || one.item != next.item {
        let kind = |info: &TensorInfo| info.item.clone().unwrap_or_else(|| info.spec.dtype().to_string());
        let hint = "convert them one by one, with `cast` where it fits, and join the arrays";
        return refused(format!("it has {} elements, the first has {}: {hint}", kind(next), kind(one)));
    }
    let (axes, others) = (lengths(one), lengths(next));
    let differs = |(one, other): (&Option<u64>, &Option<u64>)| one.is_some() && other.is_some() && one != other;
    if has_rank && (axes.len() != others.len() || axes.iter().zip(&others).skip(1).any(differs)) {
        return refused(format!(
            "its shape is {}, that of the first is {}: only axis 0 may differ",
            ShapeText(next.shape()),
            ShapeText(one.shape())
        ));
    }
    Ok(())
}

#[deny(clippy::missing_trait_methods, reason = "a wrapper answers every question itself")]
impl Container for Concat {
    fn format(&self) -> &'static str {
        self.parts[0].format()
    }

    fn len(&self) -> Result<usize> {
        Ok(self.tensors.len())
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        Ok(self.tensors[index].info.clone())
    }

    fn is_meant(&self, index: usize) -> Result<bool> {
        Ok(self.tensors[index].is_meant)
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        Ok(self.tensors.iter().position(|joined| joined.info.name.as_bytes() == name))
    }

    fn find_alias(&self, alias: &[u8]) -> Option<usize> {
        self.tensors.iter().position(|joined| joined.info.alias.as_ref().is_some_and(|own| own.as_bytes() == alias))
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        let Joined { info, numbers, .. } = &self.tensors[index];
        let (mut links, mut regions, mut first) = (Vec::with_capacity(numbers.len()), Vec::new(), 0);
        for (part, &number) in self.parts.iter().zip(numbers) {
            let reader = part.reader_of(number)?;
            if reader.layout() == Layout::F && reader.spec().shape().len() > 1 {
                let what = format!("joining {}", part.path().display());
                return Err(Error::Unsupported { what, detail: "it is in Fortran order: convert it to C order first".into() });
            }
            let elements = first..first + reader.spec().elements();
            first = elements.end;
            let own_regions = regions.len()..regions.len() + reader.regions().len();
            regions.extend_from_slice(reader.regions());
            links.push(Link { elements, reader, regions: own_regions });
        }
        // A computed tensor has its shape only now.
        let spec = spec_of(info, &links).map_err(|(at, detail)| {
            let what = format!("joining {} of {}", info.name, self.parts[at].path().display());
            Error::Unsupported { what, detail }
        })?;
        let order = links.first().map_or(ByteOrder::Little, |link| link.reader.byte_order());
        if let Some(at) = links.iter().position(|link| link.reader.byte_order() != order) {
            let what = format!("joining {}", self.parts[at].path().display());
            return Err(Error::Unsupported { what, detail: format!("it is not {order}-endian like the first one: convert it first") });
        }
        Ok(Box::new(Chain { spec, order, links, regions }))
    }

    fn strings(&self, index: usize) -> Result<StoredStrings<'_>> {
        let what = format!("joining {}", self.tensors[index].info.name);
        Err(Error::Unsupported { what, detail: "strings cannot be joined: convert each source separately".into() })
    }

    fn records(&self, _: usize) -> Option<(&RecordContainer, usize)> {
        None
    }

    fn take_records(&mut self) -> Option<RecordContainer> {
        None
    }

    fn is_vouched_for(&self, index: usize) -> bool {
        let numbers = &self.tensors[index].numbers;
        self.parts.iter().zip(numbers).all(|(part, &number)| part.container().is_vouched_for(number))
    }

    fn notes(&self) -> Vec<String> {
        self.parts.iter().flat_map(|part| part.container().notes()).collect()
    }

    fn nothing(&self) -> Error {
        self.parts[0].container().nothing()
    }

    fn claimed_rows(&self, index: usize) -> Option<u64> {
        let mut parts = self.parts.iter().zip(&self.tensors[index].numbers);
        parts.try_fold(0u64, |rows, (part, &number)| rows.checked_add(part.container().claimed_rows(number)?))
    }

    fn tag_sets(&self) -> &[Vec<String>] {
        &[]
    }

    fn signatures(&self) -> &[Signature] {
        &[]
    }

    fn is_made(&self, index: usize) -> bool {
        let numbers = &self.tensors[index].numbers;
        self.parts.iter().zip(numbers).any(|(part, &number)| part.container().is_made(number))
    }

    fn heap_bytes(&self) -> u64 {
        self.parts.iter().map(Source::heap_bytes).fold(0, u64::saturating_add)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.parts.iter().flat_map(|part| part.container().files()).collect()
    }

    fn facts(&self) -> Map<String, Value> {
        let paths: Vec<_> = self.parts.iter().map(|part| part.path().to_string_lossy()).collect();
        Map::from_iter([("joined".to_owned(), json!(paths))])
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        let rows: Result<Vec<u64>> =
            self.parts.iter().zip(&self.tensors[index].numbers).map(|(part, &number)| Ok(part.at(number)?.info().spec.rows())).collect();
        Ok(Map::from_iter([("joined_rows".to_owned(), json!(rows?))]))
    }

    fn warnings(&self) -> Vec<String> {
        self.parts.iter().flat_map(Source::warnings).collect()
    }

    fn lost(&self) -> Vec<String> {
        self.parts.iter().flat_map(Source::lost).collect()
    }
}

/// The shape of all parts together, or which part does not fit and why.
fn spec_of(info: &TensorInfo, links: &[Link<'_>]) -> Result<TensorSpec, (usize, String)> {
    let first = links.first().map_or(&info.spec, |link| link.reader.spec());
    let mut rows = 0u64;
    for (at, link) in links.iter().enumerate() {
        let own = link.reader.spec();
        let (Some(_), Some(row)) = (own.shape().first(), own.shape().get(1..)) else {
            return Err((at, "a scalar has no axis 0".into()));
        };
        if first.shape().get(1..) != Some(row) || own.dtype() != first.dtype() {
            return Err((at, format!("it is {own}, the first is {first}: only axis 0 may differ")));
        }
        rows = rows.checked_add(own.rows()).ok_or_else(|| (at, BadRequest::TooMany { what: "rows" }.to_string()))?;
    }
    let shape = [&[rows], first.shape().get(1..).unwrap_or_default()].concat();
    TensorSpec::new(first.dtype(), shape).map_err(|request| (0, request.to_string()))
}

/// One part of a joined tensor.
#[derive(Debug)]
struct Link<'a> {
    /// Its elements among all joined ones.
    elements: Range<u64>,
    reader: Box<dyn TensorReader + 'a>,
    /// Its regions among all regions.
    regions: Range<usize>,
}

/// Parts in sequence.
#[derive(Debug)]
struct Chain<'a> {
    spec: TensorSpec,
    order: ByteOrder,
    links: Vec<Link<'a>>,
    regions: Vec<Region>,
}

impl Chain<'_> {
    /// The parts that contain any of `elements`, each with the range in its own elements.
    fn of(&self, elements: Range<u64>) -> impl Iterator<Item = (&Link<'_>, Range<u64>)> {
        let from = self.links.partition_point(|link| link.elements.end <= elements.start);
        self.links[from..].iter().take_while(move |link| link.elements.start < elements.end).filter_map(move |link| {
            let own = elements.start.max(link.elements.start)..elements.end.min(link.elements.end);
            (!own.is_empty()).then(|| (link, own.start - link.elements.start..own.end - link.elements.start))
        })
    }

    /// The row that starts at an element.
    fn row(&self, element: u64) -> u64 {
        element / self.spec.row_elements().max(1)
    }

    fn own_heap_bytes(&self) -> u64 {
        let own = self.links.len() * size_of::<Link<'_>>() + self.regions.len() * size_of::<Region>();
        crate::reader::checksums::RegionChecksums::heap_bytes(self.regions.len()).saturating_add(own as u64)
    }
}

#[deny(clippy::missing_trait_methods, reason = "a wrapper answers every question itself")]
impl TensorReader for Chain<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn layout(&self) -> Layout {
        Layout::C
    }

    fn chunks(&self) -> Option<&[u64]> {
        None
    }

    fn byte_order(&self) -> ByteOrder {
        self.order
    }

    fn keeps_bool_bytes(&self) -> bool {
        self.links.iter().all(|link| link.reader.keeps_bool_bytes())
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let mut rest = out;
        for (link, own) in self.of(elements) {
            let (now, later) = rest.split_at_mut(memory_len((own.end - own.start) * self.spec.itemsize()));
            context.with_regions(link.regions.clone(), |context| link.reader.read(own, now, context))?;
            rest = later;
        }
        Ok(())
    }

    fn is_sequential(&self) -> bool {
        self.links.iter().any(|link| link.reader.is_sequential())
    }

    fn chunk_grids(&self) -> Vec<ChunkGrid> {
        let mut grids = Vec::new();
        for link in &self.links {
            let (first, rows) = (self.row(link.elements.start), link.reader.spec().rows());
            let mut own = link.reader.chunk_grids();
            if own.is_empty() {
                own.push(ChunkGrid { rows: 0..rows, chunk: vec![1; self.spec.shape().len()], unit: Unit::Element });
            }
            grids.extend(own.into_iter().map(|grid| ChunkGrid { rows: first + grid.rows.start..first + grid.rows.end, ..grid }));
        }
        let all = |unit: Unit| grids.iter().all(|grid| grid.unit == unit);
        if all(Unit::Element) {
            return Vec::new();
        }
        if all(Unit::Stream) {
            return vec![ChunkGrid { rows: 0..self.spec.rows(), chunk: vec![1; self.spec.shape().len()], unit: Unit::Stream }];
        }
        grids
    }

    fn read_box(&self, start: &[u64], shape: &[u64], out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let (Some((&first, start)), Some((&rows, shape))) = (start.split_first(), shape.split_first()) else { return Ok(()) };
        let row_bytes = shape.iter().product::<u64>() * self.spec.itemsize();
        let width = self.spec.row_elements();
        let mut rest = out;
        for (link, own) in self.of(first * width..(first + rows) * width) {
            let (own, len) = (own.start / width, (own.end - own.start) / width);
            let (now, later) = rest.split_at_mut(memory_len(len * row_bytes));
            let (start, shape) = ([&[own], start].concat(), [&[len], shape].concat());
            context.with_regions(link.regions.clone(), |context| link.reader.read_box(&start, &shape, now, context))?;
            rest = later;
        }
        Ok(())
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn is_partly_covered(&self) -> bool {
        let is_bare = |link: &Link<'_>| link.regions.is_empty() && !link.elements.is_empty() || link.reader.is_partly_covered();
        !self.regions.is_empty() && self.links.iter().any(is_bare)
    }

    fn has_stored_runs(&self) -> bool {
        self.links.iter().any(|link| link.reader.has_stored_runs())
    }

    fn stored_run(&self, element: u64) -> Result<Option<StoredRun>> {
        let Some((link, own)) = self.of(element..element + 1).next() else { return Ok(None) };
        Ok(link.reader.stored_run(own.start)?.map(|run| StoredRun {
            elements: run.elements.start + link.elements.start..run.elements.end + link.elements.start,
            region: run.region.map(|region| region + link.regions.start),
            ..run
        }))
    }

    fn prefetch(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        self.of(elements).for_each(|(link, own)| link.reader.prefetch(own, context));
    }

    fn evict(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        self.of(elements).for_each(|(link, own)| link.reader.evict(own, context));
    }

    fn check_unchanged(&self) -> Result<()> {
        self.links.iter().try_for_each(|link| link.reader.check_unchanged())
    }

    fn fills_by_system_calls(&self) -> bool {
        self.links.iter().all(|link| link.reader.fills_by_system_calls())
    }

    fn heap_bytes(&self) -> u64 {
        self.links.iter().map(|link| link.reader.heap_bytes()).fold(self.own_heap_bytes(), u64::saturating_add)
    }

    fn box_heap_bytes(&self, workers: u64) -> u64 {
        self.links.iter().map(|link| link.reader.box_heap_bytes(workers)).fold(self.own_heap_bytes(), u64::saturating_add)
    }
}

impl Source {
    /// Joins several sources into one: each tensor of the first is continued along axis 0 by those with the same name in the
    /// others. If every source has only one tensor, its name does not matter. A tensor that cannot be joined is listed; asking
    /// for it is an error.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for fewer than two sources; [`Error::Unsupported`] for records that do not fit together.
    pub fn concat(parts: Vec<Self>) -> Result<Self> {
        let path = parts.first().map(|part| part.path().to_owned()).unwrap_or_default();
        let origin = Origin::of_all(parts.iter().map(Self::origin), true);
        Ok(Self::new(&path, join(parts)?, origin))
    }
}
