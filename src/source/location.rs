//! [`Location`]: how a path leads to a format, and the error when it leads to none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::bundle;
use super::driver::Driver;
use super::formats::{FORMATS, formats};
use super::opened::Source;
use super::origin::Origin;
use super::unrecognised::unrecognised;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::records::stream::compression::holds_nothing;
use crate::records::stream::files::{FileSet, natural_key, shard_set};
use crate::storage::glob::alternatives_of_path;
use crate::storage::paths::Found;
use crate::storage::probe::Probe;

/// What a path leads to: a format, and the place to open. It is found once and then used for everything.
#[derive(Clone)]
pub struct Location {
    /// The paths as given.
    given: Vec<PathBuf>,
    /// The format that was requested, if any.
    asked: Option<&'static str>,
    driver: &'static dyn Driver,
    place: Place,
    /// Missing shards that were tolerated, one sentence each.
    lost: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    At(Probe),
    /// Files that make one source.
    Files(FileSet),
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Location")
            .field("given", &self.given)
            .field("format", &self.format())
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Location {
    /// Finds what `path` leads to. A file, directory or prefix with exactly this name comes first; only if there is none, `path`
    /// is a pattern or `base@N`. Files of records that match a pattern are one location, other files one each, in the order of
    /// the numbers in their names. Alternatives (`{a,b}`) keep their order, and each of them must lead to something.
    ///
    /// # Errors
    /// [`Error::NotFound`], naming what is missing and what was found instead; [`Error::Unsupported`], naming a file in no supported
    /// format; [`Error::BadRequest`] for a format that does not exist; [`Error::Io`].
    pub fn find(path: impl AsRef<Path>, format: Option<&str>, options: &Options) -> Result<Vec<Self>> {
        Self::find_any(path.as_ref(), format, options).map_err(|error| options.cancel.unless_cancelled(error))
    }

    fn find_any(path: &Path, format: Option<&str>, options: &Options) -> Result<Vec<Self>> {
        let formats = Candidates::new(format)?;
        let storage = options.storage(path);
        let probe = Probe::new(&storage, path);
        if let Some(found) = formats.judge(&probe, options)? {
            return Ok(vec![Self::at(path, found, formats.asked)]);
        }
        if probe.found()? != Found::Nothing {
            return Err(unrecognised(&probe)?);
        }
        if let alternatives @ [_, _, ..] = &alternatives_of_path(path, &*storage)?[..] {
            return of_alternatives(path, alternatives, format, options);
        }
        if let Some(set) = FileSet::expand(path, &*storage)? {
            return of_set(path, set, &formats, options);
        }
        // A pattern of checkpoint prefixes: the existing files have longer names.
        match FileSet::expand(&bundle::index_path(path), &*storage)? {
            Some(indexes) => {
                let files = indexes.files.iter().map(|index| index.with_extension("")).collect();
                of_set(path, FileSet { files, missing: Vec::new() }, &formats, options)
            }
            None => Err(unrecognised(&probe)?),
        }
    }

    fn at(path: &Path, (driver, resolved): (&'static dyn Driver, Probe), asked: Option<&'static str>) -> Self {
        Self { given: vec![path.to_owned()], asked, driver, place: Place::At(resolved), lost: Vec::new() }
    }

    /// Groups locations that are one source: shards of one set of records, or files of one checkpoint.
    ///
    /// # Errors
    /// [`Error::NotFound`] where a shard of a set is missing, unless that is [tolerated](crate::RecordOptions::salvage);
    /// [`Error::BadRequest`] for a shard that is given twice.
    pub fn group(locations: Vec<Self>, options: &Options) -> Result<Vec<Self>> {
        let mut grouped: Vec<Self> = Vec::with_capacity(locations.len());
        let locations = without_doubles(locations);
        check_stdin(&locations)?;
        for (at, location) in locations.iter().enumerate() {
            if locations[..at].iter().any(|other| other.place == location.place) {
                return Err(BadRequest::GivenTwice { path: location.path().to_owned(), again: None }.into());
            }
        }
        for location in locations {
            let set = location.shard_set();
            let of_set = |other: &&mut Self| set.is_some() && other.shard_set() == set;
            match grouped.iter_mut().find(of_set) {
                Some(first) if location.driver.joins_files() => first.given.extend(location.given),
                _ => grouped.push(location),
            }
        }
        for location in &mut grouped {
            if location.given.len() > 1 && location.shard_set().is_some() && location.driver.joins_files() {
                location.place = Place::Files(FileSet::of_files(location.given.clone(), &*options.storage(location.path()))?);
            }
        }
        check_sets(&mut grouped, options)?;
        Ok(grouped)
    }

    /// As `group`, for [`Source::concat`]: each shard stays a source of its own, and they are joined in the given order.
    ///
    /// # Errors
    /// [`Error::NotFound`], as for [`group`](Self::group).
    pub fn apart(locations: Vec<Self>, options: &Options) -> Result<Vec<Self>> {
        let mut apart = without_doubles(locations);
        check_stdin(&apart)?;
        check_sets(&mut apart, options)?;
        Ok(apart)
    }

    /// The set of shards that a single file belongs to.
    fn shard_set(&self) -> Option<ShardKey> {
        match &self.place {
            Place::At(place) => Some((self.driver.name(), shard_set(place.path())?)),
            Place::Files(_) => None,
        }
    }

    /// The path of the location, or the first of several.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.given[0]
    }

    /// The format's name.
    #[must_use]
    pub fn format(&self) -> &'static str {
        self.driver.name()
    }

    /// Whether [`open`](Self::open) with these options needs a running TensorFlow: see `tensorflow::load`.
    #[must_use]
    pub fn needs_tensorflow(&self, options: &Options) -> bool {
        matches!(&self.place, Place::At(resolved) if self.driver.needs_tensorflow(resolved, options))
    }

    /// Whether `names` are outputs of nodes, such as `y:0`, that a graph has to compute. Pass those to
    /// [`ModelOptions::output`](crate::ModelOptions::output).
    #[must_use]
    pub fn are_outputs(&self, names: &[&[u8]]) -> bool {
        matches!(&self.place, Place::At(resolved) if self.driver.are_outputs(resolved, names))
    }

    /// Opens the location with the options that opening and scanning a source need.
    ///
    /// # Errors
    /// Those of [`Source::open_with`].
    pub fn open(&self, options: &Options) -> Result<Source> {
        let path = self.path();
        let opened = match &self.place {
            Place::At(resolved) => self.driver.open(resolved, options),
            Place::Files(set) => self.driver.open_files(path, set.clone(), options),
        };
        let container = opened.map_err(|error| options.cancel.unless_cancelled(error))?;
        Ok(Source::found(path, container, Origin::of(&self.given, self.asked), self.lost.clone(), options.storage(path)))
    }
}

/// A set of shards: its format, the file names without their numbers, and the number of shards in the names.
pub(crate) type ShardKey = (&'static str, (Vec<u8>, u64));

/// Drops locations that repeat a checkpoint by another of its files. The same path given twice is kept twice.
pub(crate) fn without_doubles(locations: Vec<Location>) -> Vec<Location> {
    let mut kept: Vec<Location> = Vec::with_capacity(locations.len());
    for location in locations {
        let is_known = |other: &&mut Location| other.place == location.place && !other.given.contains(&location.given[0]);
        match kept.iter_mut().find(is_known) {
            Some(known) => known.given.extend(location.given),
            None => kept.push(location),
        }
    }
    kept
}

/// Refuses standard input that is given twice.
pub(crate) fn check_stdin(locations: &[Location]) -> Result<()> {
    if locations.iter().filter(|location| location.path() == Path::new("-")).count() > 1 {
        return Err(BadRequest::GivenTwice { path: "-".into(), again: None }.into());
    }
    Ok(())
}

/// Refuses sets of shards with gaps, also for formats in which each file is a source.
pub(crate) fn check_sets(locations: &mut [Location], options: &Options) -> Result<()> {
    let mut sets: BTreeMap<ShardKey, Vec<usize>> = BTreeMap::new();
    for (at, location) in locations.iter_mut().enumerate() {
        let set = location.shard_set();
        match (&location.place, set) {
            (Place::Files(files), _) => {
                let checked = check_set(files, options)?;
                location.lost.extend(checked);
            }
            (Place::At(_), Some(set)) => sets.entry(set).or_default().push(at),
            (Place::At(_), None) => {}
        }
    }
    for members in sets.into_values().filter(|members| members.len() > 1) {
        let mut files: Vec<PathBuf> = members.iter().flat_map(|&at| locations[at].given.clone()).collect();
        files.sort();
        files.dedup();
        let checked = check_set(&FileSet::of_files(files, &*options.storage(locations[members[0]].path()))?, options)?;
        locations[members[0]].lost.extend(checked);
    }
    Ok(())
}

/// Describes the missing shards of a set, if that is tolerated.
pub(crate) fn check_set(files: &FileSet, options: &Options) -> Result<Option<String>> {
    match files.missing_shards() {
        None => Ok(None),
        Some(detail) if options.records.salvage.is_set() => Ok(Some(format!("shard not found: {detail}"))),
        Some(detail) => Err(Error::NotFound { what: "shard", detail: format!("{detail}; `salvage` converts the others") }),
    }
}

/// The locations of all alternatives of a path with braces. Files of records become one location.
pub(crate) fn of_alternatives(path: &Path, alternatives: &[PathBuf], format: Option<&str>, options: &Options) -> Result<Vec<Location>> {
    let mut locations: Vec<Location> = Vec::new();
    for alternative in alternatives {
        for location in Location::find(alternative, format, options)? {
            if !locations.iter().any(|known| known.place == location.place) {
                locations.push(location);
            }
        }
    }
    let [first, _, ..] = &locations[..] else { return Ok(locations) };
    if !first.driver.joins_files() || locations.iter().any(|other| other.format() != first.format()) {
        return Ok(locations);
    }
    let files = locations.iter().flat_map(|location| match &location.place {
        Place::At(file) => vec![file.path().to_owned()],
        Place::Files(set) => set.files.clone(),
    });
    let set = FileSet::of_files(files.collect(), &*options.storage(path))?;
    let mut lost: Vec<String> = locations.iter().flat_map(|location| location.lost.clone()).collect();
    lost.extend(check_set(&set, options)?.filter(|missing| !lost.contains(missing)));
    Ok(vec![Location { given: vec![path.to_owned()], place: Place::Files(set), lost, ..first.clone() }])
}

/// The locations of the files that match a pattern or `base@N`.
pub(crate) fn of_set(path: &Path, set: FileSet, formats: &Candidates, options: &Options) -> Result<Vec<Location>> {
    let mut judged = Vec::with_capacity(set.files.len());
    let first = set.files.first().and_then(|file| shard_set(file));
    let is_one_set = first.is_some() && set.files.iter().all(|file| shard_set(file) == first);
    let (storage, mut joined) = (options.storage(path), None);
    for file in &set.files {
        let probe = Probe::new(&storage, file);
        let found = formats.judge(&probe, options)?;
        joined = joined.or_else(|| found.as_ref().map(|(driver, _)| *driver).filter(|driver| driver.joins_files()));
        // With thousands of shards, the first one with a known format decides for all.
        if is_one_set && joined.is_some() {
            break;
        }
        judged.push((probe, found));
    }
    if let Some(driver) = joined {
        for (probe, found) in judged {
            match found {
                Some((other, _)) if other.name() != driver.name() => {
                    let (path, file) = (path.to_owned(), probe.path().to_owned());
                    return Err(BadRequest::SeveralFormats { path, file, format: other.name(), others: driver.name() }.into());
                }
                None if !holds_nothing(&probe.open()?)? => return Err(not_of_pattern(path, &probe)?),
                _ => {}
            }
        }
        let lost = check_set(&set, options)?.into_iter().collect();
        return Ok(vec![Location { given: vec![path.to_owned()], asked: formats.asked, driver, place: Place::Files(set), lost }]);
    }
    let lost = check_set(&set, options)?;
    let mut locations: Vec<Location> = Vec::new();
    judged.sort_by_cached_key(|(probe, _)| natural_key(probe.path()));
    for (probe, found) in judged {
        let Some(found) = found else { return Err(not_of_pattern(path, &probe)?) };
        let location = Location::at(probe.path(), found, formats.asked);
        // All files of a checkpoint lead to the same place.
        if !locations.iter().any(|other| other.place == location.place) {
            locations.push(location);
        }
    }
    if let Some(first) = locations.first_mut() {
        first.lost.extend(lost);
    }
    Ok(locations)
}

/// The error for a file that matches a pattern but has no known format.
pub(crate) fn not_of_pattern(pattern: &Path, probe: &Probe) -> Result<Error> {
    Ok(match unrecognised(probe)? {
        Error::Unsupported { what, detail } => {
            Error::Unsupported { what, detail: format!("{detail}; {} matches it: a narrower pattern leaves it out", pattern.display()) }
        }
        other => other,
    })
}

/// The formats to consider: the requested one, or all.
pub(crate) struct Candidates {
    drivers: Vec<&'static dyn Driver>,
    asked: Option<&'static str>,
}

impl Candidates {
    /// # Errors
    /// [`Error::BadRequest`] for a format that does not exist.
    fn new(format: Option<&str>) -> Result<Self> {
        let drivers: Vec<_> = FORMATS.iter().copied().filter(|driver| format.is_none_or(|name| name == driver.name())).collect();
        if drivers.is_empty() {
            let name = format.unwrap_or_default().to_owned();
            return Err(BadRequest::NoSuchFormat { name, known: formats().collect() }.into());
        }
        let asked = format.and(drivers.first()).map(|driver| driver.name());
        Ok(Self { drivers, asked })
    }

    /// The format of the file or directory at exactly this path, and the place to open; `None` if no format recognises it.
    fn judge(&self, probe: &Probe, options: &Options) -> Result<Option<(&'static dyn Driver, Probe)>> {
        for &driver in &self.drivers {
            if let Some(resolved) = driver.resolve(probe)? {
                return Ok(Some((driver, resolved)));
            }
        }
        for &driver in &self.drivers {
            if let Some(resolved) = driver.resolve_unrecognised(probe, options)? {
                return Ok(Some((driver, resolved)));
            }
        }
        // If the caller names a format of plain files, opening the file tells what is wrong with it.
        match (self.asked, &self.drivers[..]) {
            (Some(_), [driver]) if driver.takes_any_file() && probe.is_file()? => Ok(Some((*driver, probe.clone()))),
            _ => Ok(None),
        }
    }
}

impl Source {
    /// Opens what `path` names: a checkpoint prefix, its `.index` file, a directory with a `checkpoint` state file, a SavedModel
    /// directory, a frozen graph, a serialized tensor, a file of records or a pattern for several, a folder written by tf.data, a
    /// video. The content tells the format. If a pattern matches several sources, the result has all of their tensors, as
    /// [`together`](Self::together).
    ///
    /// # Errors
    /// [`Error::NotFound`], naming what is missing and what was found; [`Error::Unsupported`], naming a format that this version does
    /// not read; [`Error::Malformed`], telling where a file is broken; [`Error::Io`] when reading fails; [`Error::Limit`] when the
    /// index is too large.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_as(path, None)
    }

    /// Opens `path` in the format with this name (one of [`formats`]), whatever its content looks like.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`Error::BadRequest`] for a format that does not exist.
    pub fn open_as(path: impl AsRef<Path>, format: Option<&str>) -> Result<Self> {
        Self::open_with(path, format, &Options::default())
    }

    /// As [`open_as`](Self::open_as), with the options that opening and scanning a source need: memory, threads, whether to
    /// verify checksums, [`Options::records`].
    ///
    /// # Errors
    /// Those of [`open_as`](Self::open_as).
    pub fn open_with(path: impl AsRef<Path>, format: Option<&str>, options: &Options) -> Result<Self> {
        let found = Location::find(path, format, options)?;
        let mut parts = found.iter().map(|location| location.open(options)).collect::<Result<Vec<_>>>()?;
        match parts.pop() {
            Some(only) if parts.is_empty() => Ok(only),
            last => {
                parts.extend(last);
                Self::together(parts)
            }
        }
    }
}
