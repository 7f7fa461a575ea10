//! Converts arguments to options of the library.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mmconvert::{Location, ModelOptions, Options, RecordOptions};

use crate::args::{Form, Model, Records, Resources, Streams};

pub(super) fn bytes(names: &[OsString]) -> Vec<&[u8]> {
    names.iter().map(|name| name.as_bytes()).collect()
}

/// Options for computations by TensorFlow. Temporary files go to `scratch`.
pub(super) fn model(args: &Model, scratch: Option<&Path>) -> ModelOptions {
    let mut model = ModelOptions::new();
    for feed in &args.feed {
        model = model.feed(&feed.input, &feed.path);
    }
    for library in &args.op_library {
        model = model.op_library(library);
    }
    if let Some(tags) = &args.tag_set {
        let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
        model = model.tag_set(tags.map(str::to_owned));
    }
    if let Some(batch) = args.batch {
        model = model.batch(batch);
    }
    if let Some(signature) = &args.signature {
        model = model.signature(signature);
    }
    if let Some(scratch) = scratch {
        model = model.scratch(scratch);
    }
    with_outputs(model, &args.outputs)
}

fn with_outputs(model: ModelOptions, names: &[OsString]) -> ModelOptions {
    names.iter().fold(model, |model, name| model.output(name.to_string_lossy()))
}

/// Adds `names` as outputs to compute, if the source is computed. Names alone do not start a computation if they are variables or
/// constants that the source holds.
pub(super) fn with_names(options: Options, location: &Location, names: &[OsString]) -> Options {
    let is_computed = location.needs_tensorflow(&options) || location.are_outputs(&bytes(names));
    if is_computed {
        let model = with_outputs(options.chosen_model().clone(), names);
        return options.model(model);
    }
    options
}

fn streams(args: &Streams) -> RecordOptions {
    let mut records = RecordOptions::new().salvage(args.salvage);
    for shape in &args.shape {
        records = records.shape(shape.feature.as_deref(), &shape.value.0);
    }
    for raw in &args.raw {
        let feature = raw.feature.as_deref();
        records = match raw.value.order {
            Some(order) => records.raw_in(feature, raw.value.dtype, order),
            None => records.raw(feature, raw.value.dtype),
        };
    }
    if let Some(offset) = args.offset {
        records = records.offset(offset);
    }
    if let Some(channels) = args.channels {
        records = records.channels(channels);
    }
    if let Some(stream) = args.stream {
        records = records.stream(stream);
    }
    records
}

fn records(args: &Records) -> RecordOptions {
    let mut records = streams(&args.streams).flatten(args.flatten);
    for read_as in &args.read_as {
        records = records.read_as(read_as.feature.as_deref(), read_as.value);
    }
    for ragged in &args.ragged {
        records = records.ragged(ragged.feature.as_deref(), ragged.value.clone());
    }
    for missing in &args.missing {
        records = records.missing(missing.feature.as_deref(), missing.value.clone());
    }
    match args.jpeg {
        Some(jpeg) => records.jpeg(jpeg),
        None => records,
    }
}

/// Options for a listing.
pub(super) fn for_listing(wanted: &Streams) -> Options {
    Options::new().must_apply(true).records(streams(wanted))
}

/// Options for reading data. Every option must have an effect.
pub(super) fn options(resources: &Resources, wanted: &Records) -> Options {
    let mut options = Options::new().must_apply(true).records(records(wanted)).memory(resources.memory.unwrap_or_default());
    if let Some(method) = resources.method {
        options = options.method(method);
    }
    if let Some(slices) = resources.in_flight {
        options = options.in_flight(slices.into());
    }
    if let Some(threads) = resources.threads {
        options = options.threads(threads.into());
    }
    options
}

/// Adds the options for the form of arrays.
pub(super) fn with_form(options: Options, form: &Form) -> Options {
    let mut options = options.strict(form.strict).layout(form.layout);
    if let Some(order) = form.byte_order {
        options = options.byte_order(order);
    }
    if let Some(strings) = form.strings {
        options = options.strings(strings);
    }
    match form.dtype {
        Some(dtype) => options.cast(dtype),
        None => options,
    }
}
