//! [`Work`]: what makes the arrays of one tensor. All verbs go through it.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use super::array::Array;
use super::job::Job;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::request::Request;
use crate::output::part::Part;
use crate::output::place::ArrayPlace;
use crate::output::report::{Estimate, Report};
use crate::reader::tensor_reader::TensorReader;
use crate::records::feature::Feature;
use crate::records::pass::plan::Pass;
use crate::source::opened::{RecordColumn, Tensor};
use crate::types::dtype::Dtype;

/// What makes the arrays of one tensor, ready: every check that needs no output has passed.
pub(crate) enum Work<'a> {
    /// A job for each array, which reads the elements.
    Jobs(Vec<Job<'a>>),
    /// One pass over records, for all arrays of a feature.
    Pass(Box<Pass<'a>>),
}

impl<'a> Work<'a> {
    /// The work for what `request` asks of a tensor.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for rows of a scalar, [`Error::Unsupported`] for a dtype, a cast or an order that does not exist, and those
    /// of reading lengths of strings, and records.
    pub(crate) fn of(tensor: &'a Tensor, request: &'a Request) -> Result<Self> {
        Self::with_others(tensor, request, |_| Ok(Vec::new()))
    }

    /// The work for a tensor and, if it is a column of records, for `others` of the same records. Its own arrays come first.
    ///
    /// # Errors
    /// Those of [`of`](Self::of).
    pub(crate) fn with_others(
        tensor: &'a Tensor,
        request: &'a Request,
        others: impl FnOnce(&RecordColumn<'_>) -> Result<Vec<Feature>>,
    ) -> Result<Self> {
        let Some(column) = tensor.column() else {
            let jobs = Array::of_tensor(tensor, request).and_then(|arrays| Self::jobs(arrays, request));
            return jobs.map_err(|error| match error {
                Error::BadRequest(BadRequest::RowsOfScalar) => BadRequest::RowsOfScalar.of_tensor(&tensor.info().name).into(),
                error => error,
            });
        };
        let others = others(&column)?;
        let RecordColumn { records, set, feature } = column;
        let features: Vec<Feature> = std::iter::once(feature).chain(others).collect();
        Pass::plan(records, set, &features, request).map(|pass| Self::Pass(Box::new(pass)))
    }

    /// The work for a reader of the caller's own.
    ///
    /// # Errors
    /// Those of [`of`](Self::of).
    pub(crate) fn of_reader(reader: Box<dyn TensorReader + 'a>, request: &'a Request) -> Result<Self> {
        Self::jobs(vec![Array::of_reader(reader, request.rows)?], request)
    }

    fn jobs(arrays: Vec<Array<'a>>, request: &'a Request) -> Result<Self> {
        let job = |array| Job::new(array, request.rows, &request.form, &request.run);
        arrays.into_iter().map(job).collect::<Result<_>>().map(Self::Jobs)
    }

    /// The part that each array holds, and the dtype of its elements in the file.
    pub(crate) fn arrays(&self) -> Vec<(Part, Dtype)> {
        match self {
            Self::Jobs(jobs) => jobs.iter().map(|job| (job.part(), job.spec.dtype())).collect(),
            Self::Pass(pass) => pass.arrays.iter().map(|array| (array.part, array.element())).collect(),
        }
    }

    /// Refuses what exceeds the memory.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub(crate) fn check_memory(&self) -> Result<()> {
        match self {
            Self::Jobs(jobs) => jobs.iter().try_for_each(Job::check_memory),
            // Its plan has been made.
            Self::Pass(_) => Ok(()),
        }
    }

    /// The cost of making each array, beside or below `output`.
    pub(crate) fn estimate(&self, output: &Path) -> Result<Vec<Estimate>> {
        match self {
            Self::Jobs(jobs) => jobs.iter().map(|job| job.estimate(output)).collect(),
            Self::Pass(pass) => pass.estimate(output),
        }
    }

    /// Refuses what cannot be written front to back.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub(crate) fn check_stream(&self) -> Result<()> {
        match self {
            Self::Jobs(jobs) => only_job(jobs)?.check_stream(),
            Self::Pass(pass) => pass.check_stream().map(drop),
        }
    }

    /// Writes the only array to `out`, front to back. The report counts from `started`.
    ///
    /// # Errors
    /// Those of [`check_stream`](Self::check_stream) and of reading; [`Error::Io`].
    pub(crate) fn stream(&self, out: &mut (dyn Write + Send), started: Instant) -> Result<Report> {
        match self {
            Self::Jobs(jobs) => {
                let job = only_job(jobs)?;
                job.check_memory()?;
                Ok(job.report(&job.stream(out)?, started))
            }
            Self::Pass(pass) => pass.stream(out, started),
        }
    }

    /// Makes the arrays in these places, one for each of [`arrays`](Self::arrays). Their reports count from `started`.
    ///
    /// # Errors
    /// Those of reading and writing. The places are in an unknown state then.
    pub(crate) fn fill(&self, places: &[ArrayPlace], request: &Request, started: Instant) -> Result<Vec<Report>> {
        match self {
            Self::Jobs(jobs) => {
                let total_bytes = jobs.iter().map(|job| job.spec.nbytes()).fold(0, u64::saturating_add);
                let mut done_bytes = 0u64;
                let mut fill = |(job, place): (&Job<'_>, &ArrayPlace)| {
                    request.run.progress.count_from(done_bytes, Some(total_bytes));
                    done_bytes = done_bytes.saturating_add(job.spec.nbytes());
                    Ok(job.report(&job.fill(place)?, started))
                };
                jobs.iter().zip(places).map(&mut fill).collect()
            }
            // No column may drop out of a pass for one tensor.
            Self::Pass(pass) => Ok(pass.fill(places, started)?.reports.into_iter().flatten().collect()),
        }
    }
}

fn only_job<'a, 'b>(jobs: &'a [Job<'b>]) -> Result<&'a Job<'b>> {
    let [job] = jobs else {
        return Err(BadRequest::TwoArrays { taker: "a stream", instead: "write them to files" }.into());
    };
    Ok(job)
}
