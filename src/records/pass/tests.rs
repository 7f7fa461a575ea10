//! Tests how often records are read, with a program that counts its starts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::convert::Converter;
use crate::convert::dry_run::{Estimated, packing_room};
use crate::convert::export::export;
use crate::convert::exported::Skipped;
use crate::convert::pack::pack;
use crate::error::Error;
use crate::format::crc;
use crate::options::Options;
use crate::options::budget::Budget;
use crate::options::records::{Missing, Ragged, RecordOptions};
use crate::options::strings::Strings;
use crate::output::report::Estimate;
use crate::records::container::RecordContainer;
use crate::records::set::{Inputs, RecordSet};
use crate::source::opened::Source;
use crate::source::origin::Origin;

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut len) = (vec![number << 3 | 2], bytes.len());
    while len > 127 {
        out.push(len as u8 | 128);
        len >>= 7;
    }
    out.push(len as u8);
    [&out, bytes].concat()
}

enum Values {
    /// Each value is 0 to 127.
    Ints(Vec<u8>),
    Strings(Vec<&'static str>),
    Image(Vec<u8>),
}
use Values::{Image, Ints, Strings as Texts};

fn frame(features: &[(String, Values)]) -> Vec<u8> {
    let list = |values: &Values| match values {
        Ints(values) => field(3, &field(1, values)),
        Image(value) => field(1, &field(1, value)),
        Texts(values) => field(1, &values.iter().flat_map(|value| field(1, value.as_bytes())).collect::<Vec<_>>()),
    };
    let entry = |(name, values): &(String, Values)| field(1, &[field(1, name.as_bytes()), field(2, &list(values))].concat());
    let record = field(1, &features.iter().flat_map(entry).collect::<Vec<_>>());
    let masked = |bytes: &[u8]| crc::mask(crc::crc32c(bytes)).to_le_bytes();
    let len = (record.len() as u64).to_le_bytes();
    [&len[..], &masked(&len), &record, &masked(&record)].concat()
}

/// Records made by a program, and how often it was started.
struct Made {
    source: Source,
    starts: Arc<AtomicUsize>,
}

impl Made {
    fn new(records: impl Iterator<Item = Vec<(String, Values)>>, options: &Options) -> Self {
        let bytes: Arc<[u8]> = records.flat_map(|features| frame(&features)).collect();
        let starts = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&starts);
        let path = Path::new("made");
        let inputs = Inputs::program(
            path,
            move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(Box::new(Cursor::new(Arc::clone(&bytes))))
            },
            (None, None),
        );
        let container = RecordContainer::new("made", path, vec![RecordSet::undescribed(inputs)], options);
        Self { source: Source::new(path, Box::new(container), Origin::default()), starts }
    }

    /// Exports the features that `is_wanted` accepts: returns the files, the skipped features, and how often the records were read
    /// after the survey.
    fn export(&self, is_wanted: impl Fn(&str) -> bool, options: &Options) -> Result<Exported, Error> {
        let dir = tempfile::tempdir().unwrap();
        let mut tensors = self.source.all().unwrap();
        tensors.retain(|tensor| is_wanted(&tensor.info().name.to_json()));
        let before = self.starts.load(Ordering::Relaxed);
        let out = dir.path().join("out");
        let exported = export(&tensors, None, &out, options)?;
        let passes = self.starts.load(Ordering::Relaxed) - before;
        let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
        let files = fs::read_dir(&out).unwrap().map(Result::unwrap).filter(|entry| name(entry) != "manifest.json");
        let files = files.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect();
        let lost = exported.outputs.iter().flat_map(|output| output.report.lost.clone()).collect();
        Ok(Exported { files, skipped: exported.skipped, lost, passes })
    }
}

struct Exported {
    files: BTreeMap<String, Vec<u8>>,
    skipped: Vec<Skipped>,
    lost: Vec<String>,
    passes: usize,
}

const RECORDS: usize = 6000;
const BAD: usize = 12;

/// Three features that fit arrays, and twelve where one record has a different number of values, none, or an invalid value. That
/// record comes later the higher the feature's number.
fn mixed() -> impl Iterator<Item = Vec<(String, Values)>> {
    (0..RECORDS).map(|record| {
        let byte = |factor: usize| (record * factor % 128) as u8;
        let mut features = vec![("a".to_owned(), Ints(vec![byte(3)])), ("pair".to_owned(), Ints(vec![byte(5), byte(7)]))];
        features.push(("text".to_owned(), Texts(vec!["x"; record % 3 + 1])));
        for bad in 0..BAD {
            let is_odd = record >= 100 + bad * 450;
            let values = match bad % 4 {
                0 if is_odd => continue,
                1 if is_odd => Ints(Vec::new()),
                2 => Texts(vec![if is_odd { "ends with\0" } else { "plain" }]),
                3 => Texts(vec![if is_odd { "" } else { "x" }; if is_odd { 2 } else { 1 }]),
                _ => Ints(vec![byte(11)]),
            };
            features.push((format!("bad{bad:02}"), values));
        }
        features
    })
}

fn options(threads: usize, mib: u64) -> Options {
    Options::new().threads(threads).memory(Budget::mib(mib)).records(RecordOptions::new().missing(None, Missing::Refuse))
}

#[test]
fn one_pass_finds_all_features_that_are_no_arrays() {
    let flat = |options: &Options| options.clone().records(options.records.clone().ragged(Some("text"), Ragged::Pad(None)));
    let made = Made::new(mixed(), &flat(&options(2, 16)));
    let good = made.export(|name| !name.starts_with("bad"), &flat(&options(2, 64))).unwrap();
    assert_eq!((good.files.len(), good.skipped.len(), good.passes), (3, 0, 1));
    let mut told: Option<Vec<(String, String)>> = None;
    for (threads, mib) in [(1, 64), (2, 16), (4, 20), (4, 64)] {
        let all = made.export(|_| true, &flat(&options(threads, mib))).unwrap();
        assert_eq!(all.passes, 1);
        assert!(all.files == good.files, "{threads} {mib}");
        let skipped: Vec<(String, String)> = all.skipped.iter().map(|one| (one.name.to_json(), one.reason.clone())).collect();
        assert_eq!(skipped.len(), BAD, "{skipped:?}");
        for (name, reason) in &skipped {
            let bad: usize = name["bad".len()..].parse().unwrap();
            assert!(reason.contains(&format!("record {} ", 100 + bad * 450)), "{name}: {reason}");
        }
        assert_eq!(told.get_or_insert_with(|| skipped.clone()), &skipped, "{threads} {mib}");
    }
    // With `strict`, a refused value ends the export.
    assert!(made.export(|_| true, &flat(&options(2, 64)).strict(true)).is_err());
    // No feature is left.
    let error = made.export(|name| name.starts_with("bad"), &options(2, 64)).map(|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { detail, .. } if detail.contains("none of 12 tensors")), "{error}");
}

#[test]
fn lists_that_cannot_be_counted_stop_no_others() {
    // As offsets, every record must have as many strings as the first ones, which the survey checks.
    let records = || {
        (0..RECORDS).map(|record| {
            let count = |from: usize| if record < from { 1 } else { 2 };
            let list = |name: &str, from| (name.to_owned(), Texts(vec!["word"; count(from)]));
            vec![list("odd", 2000), list("later", 5000), list("good", RECORDS), ("n".to_owned(), Ints(vec![(record % 100) as u8]))]
        })
    };
    let options = |threads| options(threads, 16).strings(Strings::Offsets);
    let made = Made::new(records(), &options(1));
    let good = made.export(|name| name == "good" || name == "n", &options(2)).unwrap();
    assert_eq!(good.files.len(), 3);
    for threads in 1..5 {
        let all = made.export(|_| true, &options(threads)).unwrap();
        assert!(all.files == good.files && all.passes == 1, "{threads}: {}", all.passes);
        assert_eq!(all.skipped.len(), 2);
    }
}

#[test]
fn a_feature_that_decided_which_records_are_kept_makes_one_more_pass() {
    for lacks in [false, true] {
        let records = (0..RECORDS).map(|record| {
            let mut features = vec![("n".to_owned(), Ints(vec![(record % 100) as u8]))];
            // Skipped if missing, and in the end no array.
            if !(lacks && record % 7 == 3) {
                features.push(("key".to_owned(), Texts(vec![if record == 4001 { "\0" } else { "x" }])));
            }
            if record != 50 {
                features.push(("early".to_owned(), Ints(vec![1])));
            }
            // The record that reveals it is at first skipped because of the key.
            if record < 5008 || record % 7 != 3 && record < 5500 {
                features.push(("late".to_owned(), Ints(vec![1])));
            }
            features
        });
        let skip = |options: Options| {
            let records = RecordOptions::new().missing(None, Missing::Refuse).missing(Some("key"), Missing::Skip);
            options.records(records)
        };
        let made = Made::new(records, &skip(options(1, 16)));
        let good = made.export(|name| name == "n", &options(2, 16)).unwrap();
        for threads in 1..5 {
            let all = made.export(|_| true, &skip(options(threads, 16))).unwrap();
            assert!(all.files == good.files, "{lacks} {threads}");
            assert_eq!(all.passes, if lacks { 2 } else { 1 }, "{lacks} {threads}");
            let reasons: Vec<&str> = all.skipped.iter().map(|skipped| &skipped.reason[..]).collect();
            let [early, key, late] = reasons[..] else { panic!("{reasons:?}") };
            assert!(early.contains("record 50 ") && key.contains("record 4001 "), "{reasons:?}");
            assert!(late.contains("record 5008 "), "{late}");
            assert!(all.lost.is_empty(), "{:?}", all.lost);
        }
    }
}

#[test]
fn what_is_computed_is_gone_through_once_for_a_safetensors_file() {
    let options = options(2, 20);
    let made = Made::new(mixed(), &options);
    let wanted = |name: &str| ["a", "pair", "bad00", "bad01"].contains(&name);
    for several in [false, true] {
        let is_wanted = |name: &str| if several { wanted(name) } else { name == "pair" };
        let arrays = made.export(is_wanted, &options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut tensors = made.source.all().unwrap();
        tensors.retain(|tensor| is_wanted(&tensor.info().name.to_json()));
        let before = made.starts.load(Ordering::Relaxed);
        let out = dir.path().join("all.safetensors");
        let packed = pack(&tensors, None, &out, &options).unwrap();
        assert_eq!(made.starts.load(Ordering::Relaxed) - before, 1);
        assert_eq!(packed.skipped.len(), if several { 2 } else { 0 });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left of what was made on the way");
        let packed = Source::open(&out).unwrap();
        assert_eq!(packed.len().unwrap(), arrays.files.len());
        for tensor in packed.tensors().map(Result::unwrap) {
            let file = format!("{}.npy", tensor.info().name.to_json());
            Converter::new(&tensor).unwrap().write(dir.path().join(&file)).unwrap();
            assert!(fs::read(dir.path().join(&file)).unwrap() == arrays.files[&file], "{file}");
        }
        let estimated = |(tensor, nbytes)| {
            let estimates = Converter::new(tensor).unwrap().options(options.clone()).estimate(&out).unwrap();
            (tensor, estimates.into_iter().map(|estimate| Estimate { nbytes, ..estimate }).collect())
        };
        let sizes: Vec<Estimated<'_>> = tensors.iter().zip([8, 16, 3, 4]).map(estimated).collect();
        assert_eq!(packing_room(&sizes), if several { 16 } else { 0 });
        // No array is left.
        let mut bad = tensors.clone();
        bad.retain(|tensor| tensor.info().name.to_json().starts_with("bad"));
        assert!(pack(&bad, None, dir.path().join("no.safetensors"), &options).is_err());
        assert!(!dir.path().join("no.safetensors").exists());
    }
}

/// A gray PNG of one pixel, or one whose pixel is damaged.
fn png(is_whole: bool) -> Vec<u8> {
    let chunk = |kind: &[u8], data: &[u8]| {
        let mut sum = flate2::Crc::new();
        sum.update(&[kind, data].concat());
        [&u32::try_from(data.len()).unwrap().to_be_bytes()[..], kind, data, &sum.sum().to_be_bytes()].concat()
    };
    let mut pixel = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    pixel.write_all(&[0, 7]).unwrap();
    let pixel = if is_whole { pixel.finish().unwrap() } else { vec![9; 10] };
    let header = [0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0];
    [b"\x89PNG\r\n\x1a\n", &chunk(b"IHDR", &header)[..], &chunk(b"IDAT", &pixel), &chunk(b"IEND", b"")].concat()
}

#[test]
fn values_that_cannot_be_read_do_not_matter_behind_a_dropout_and_do_before_it() {
    for (missing, expected) in [(2000, true), (4000, false)] {
        let records = (0..RECORDS).map(|record| {
            let mut features = vec![("n".to_owned(), Ints(vec![(record % 100) as u8]))];
            if record != missing {
                features.push(("image".to_owned(), Image(png(record < 2001))));
            }
            features
        });
        let options = |threads| options(threads, 16);
        let made = Made::new(records, &options(1));
        let good = made.export(|name| name == "n", &options(2)).unwrap();
        for threads in [1, 2, 4, 4, 4] {
            match made.export(|_| true, &options(threads)) {
                // A worker that is ahead may have met a damaged value: then the pass is repeated.
                Ok(all) => {
                    assert!(expected && all.files == good.files && all.passes <= threads.min(2), "{threads}: {}", all.passes);
                    assert!(all.skipped[0].reason.contains("record 2000 "), "{}", all.skipped[0].reason);
                }
                Err(error) => {
                    assert!(!expected && matches!(error, Error::Malformed { .. }), "{threads}: {error}");
                    assert!(error.to_string().contains("record 2001"), "{error}");
                }
            }
        }
    }
}
