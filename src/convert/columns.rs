//! Columns of records: those of one set are made together, in one pass over it.

use std::time::Instant;

use crate::error::{Error, Result};
use crate::options::request::Request;
use crate::output::part::Part;
use crate::output::place::ArrayPlace;
use crate::output::report::Report;
use crate::records::container::RecordContainer;
use crate::records::feature::Feature;
use crate::records::pass::array::RecordArray;
use crate::records::pass::done::Filled;
use crate::records::pass::dropped_columns::Dropout;
use crate::records::pass::plan::Pass;
use crate::source::opened::{RecordColumn, Tensor};
use crate::types::name::Name;

use super::exported::Skipped;

/// The requested columns of one set of records, and the pass that makes them.
pub(crate) struct Columns<'a> {
    /// The tensor's name for each column of the pass.
    names: Vec<Name>,
    pub(crate) pass: Pass<'a>,
}

/// A set of records, its number in the container, and the requested columns of it.
type Set<'a> = (&'a RecordContainer, usize, Vec<(Name, Feature)>);

/// The result of a pass over the columns.
pub(crate) enum Attempt<'a> {
    /// All arrays are in their places, but for those of columns that turned out not to be arrays: they have no report. Then the
    /// columns that are left.
    Once(Vec<Option<Report>>, Option<Columns<'a>>),
    /// Without the columns that turned out not to be arrays, the others have other rows, so that the pass must be repeated with
    /// what is left.
    Again(Option<Columns<'a>>),
}

impl<'a> Columns<'a> {
    /// Plans a pass for each set of records among the tensors. Columns that cannot be arrays are skipped.
    ///
    /// # Errors
    /// Those of reading records; [`Error::Limit`].
    pub(crate) fn plan_all(tensors: &[&'a Tensor], request: &Request, skipped: &mut Vec<Skipped>) -> Result<Vec<Self>> {
        let mut sets: Vec<Set<'_>> = Vec::new();
        for tensor in tensors {
            let Some(RecordColumn { records, set, feature }) = tensor.column() else { continue };
            let column = (tensor.info().name.clone(), feature);
            match sets.iter_mut().find(|(known, number, _)| std::ptr::eq(*known, records) && *number == set) {
                Some((_, _, columns)) => columns.push(column),
                None => sets.push((records, set, vec![column])),
            }
        }
        sets.into_iter().filter_map(|set| Self::plan(set, request, skipped).transpose()).collect()
    }

    fn plan((records, set, columns): Set<'a>, request: &Request, skipped: &mut Vec<Skipped>) -> Result<Option<Self>> {
        let (mut names, features): (Vec<Name>, Vec<Feature>) = columns.into_iter().unzip();
        let mut gone = Vec::new();
        let mut leave_out = |at: usize, error: Error| match error {
            Error::Unsupported { .. } | Error::Lossy { .. } if !request.form.strict => {
                let reason = features[at].unsupported.clone().unwrap_or_else(|| error.to_string());
                skipped.push(Skipped { name: names[at].clone(), reason });
                gone.push(at);
                Ok(())
            }
            error => Err(error),
        };
        let pass = Pass::plan_with(records, set, &features, request, &mut leave_out)?;
        gone.iter().rev().for_each(|&at| drop(names.remove(at)));
        Ok(Some(Self { names, pass }).filter(|columns| columns.pass.has_columns()))
    }

    /// The tensor's name for an array.
    pub(crate) fn name(&self, array: &RecordArray) -> &Name {
        &self.names[array.column]
    }

    /// The name of the tensor and the part of it that each array holds.
    pub(crate) fn arrays(&self) -> Vec<(Name, Part)> {
        self.pass.arrays.iter().map(|array| (self.name(array).clone(), array.part)).collect()
    }

    /// Makes the arrays in these places. Columns that turn out not to be arrays are skipped.
    ///
    /// # Errors
    /// Those of reading and writing; why such a column cannot be an array, where the pass cannot be repeated without it.
    pub(crate) fn make(self, places: &[ArrayPlace], skipped: &mut Vec<Skipped>) -> Result<Attempt<'a>> {
        let Filled { reports, dropouts, repeat, .. } = self.pass.fill(places, Instant::now())?;
        match repeat {
            Some(reason) if !self.pass.can_be_repeated() => Err(reason),
            Some(_) => self.without(dropouts, skipped).map(Attempt::Again),
            None => Ok(Attempt::Once(reports, self.without(dropouts, skipped)?)),
        }
    }

    /// Counts the rows of each array; returns also the columns that are left. Columns that turn out not to be arrays are skipped.
    ///
    /// # Errors
    /// Those of reading records.
    pub(crate) fn counted(mut self, skipped: &mut Vec<Skipped>) -> Result<Option<(Self, Vec<u64>)>> {
        loop {
            let done = self.pass.count()?;
            let is_final = done.repeat.is_none();
            let left = self.pass.arrays.iter().zip(&done.rows).filter(|(array, _)| !done.lacks(array.column));
            let rows = left.map(|(_, &rows)| rows).collect();
            match self.without(done.dropouts, skipped)? {
                Some(columns) if is_final => return Ok(Some((columns, rows))),
                Some(columns) => self = columns,
                None => return Ok(None),
            }
        }
    }

    /// Skips columns for which `check` has a reason; `None` if no column is left.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub(crate) fn refuse(self, check: impl Fn(&RecordArray) -> Result<()>, skipped: &mut Vec<Skipped>) -> Result<Option<Self>> {
        let mut gone: Vec<usize> = Vec::new();
        for array in &self.pass.arrays {
            if let (Err(reason), false) = (check(array), gone.contains(&array.column)) {
                skipped.push(Skipped { name: self.name(array).clone(), reason: reason.to_string() });
                gone.push(array.column);
            }
        }
        self.leave_out(gone)
    }

    fn without(self, dropouts: Vec<Dropout>, skipped: &mut Vec<Skipped>) -> Result<Option<Self>> {
        let gone = dropouts.iter().map(|dropout| dropout.column).collect();
        let reason = |dropout: Dropout| Skipped { name: self.names[dropout.column].clone(), reason: dropout.error.to_string() };
        skipped.extend(dropouts.into_iter().map(reason));
        self.leave_out(gone)
    }

    fn leave_out(mut self, mut gone: Vec<usize>) -> Result<Option<Self>> {
        if !gone.is_empty() {
            gone.sort_unstable();
            self.pass = self.pass.without(&gone)?;
            gone.iter().rev().for_each(|&at| drop(self.names.remove(at)));
        }
        Ok(Some(self).filter(|columns| columns.pass.has_columns()))
    }
}
