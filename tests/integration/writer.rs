//! Arrays from rows that a program makes.

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use mmconvert::ndarray::{ArrayViewMutD, Ix2, Ix4};
use mmconvert::{ArrayWriter, BadRequest, Budget, ByteOrder, Dtype, Error, MmapArray, Options, OutputDirectory};
use proptest::prelude::*;
use rayon::prelude::*;

use crate::support::{finish, names_in, npy};

#[test]
fn rows_filled_in_parallel_and_rows_appended_are_the_same_array() {
    let dir = tempfile::tempdir().unwrap();
    let pixel = |frame: u64, i: usize| (frame as usize * 31 + i) as u8;
    let (filled, appended) = (dir.path().join("filled.npy"), dir.path().join("appended.npy"));

    let writer = ArrayWriter::new(Dtype::UInt8, &[40, 30, 3]).rows(500).memory(Budget::mib(20)).create(&filled).unwrap();
    (0..100usize)
        .into_par_iter()
        .rev()
        .try_for_each(|batch| {
            let batch = batch as u64;
            writer.fill(batch * 5..batch * 5 + 5, |out: &mut [u8]| {
                for (frame, bytes) in (batch * 5..).zip(out.chunks_exact_mut(3600)) {
                    bytes.iter_mut().enumerate().for_each(|(i, b)| *b = pixel(frame, i));
                }
                Ok::<(), Error>(())
            })
        })
        .unwrap();
    let array = finish(writer).unwrap();
    assert_eq!(array.shape(), [500, 40, 30, 3]);
    assert_eq!(array.view_fixed::<u8, Ix4>().unwrap()[[499, 39, 29, 2]], pixel(499, 3599));

    let mut writer = ArrayWriter::new(Dtype::UInt8, &[40, 30, 3]).memory(Budget::mib(20)).create(&appended).unwrap();
    for frame in 0..500 {
        let bytes: Vec<u8> = (0..3600).map(|i| pixel(frame, i)).collect();
        let (one, two) = bytes.split_at(frame as usize % 3600);
        writer.append(one).unwrap();
        writer.append(two).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(fs::read(&filled).unwrap(), fs::read(&appended).unwrap());
}

#[test]
fn an_array_of_unknown_length_ends_where_its_rows_end() {
    for rows in [0u64, 1, 3, 1_500_000] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let mut writer = ArrayWriter::new(Dtype::Int64, &[2]).memory(Budget::mib(32)).create(&path).unwrap();
        for row in 0..rows {
            writer.append(&[row as i64, -(row as i64)]).unwrap();
        }
        let array = finish(writer).unwrap();
        assert_eq!(array.shape(), [rows, 2]);
        let (header, data) = npy(&path);
        assert_eq!(data.len() as u64, rows * 16);
        assert_eq!((header.len() + 10) % if rows == 0 { 128 } else { 4096 }, 0);
        let view = array.view_fixed::<i64, Ix2>().unwrap();
        assert!(view.rows().into_iter().enumerate().all(|(i, row)| row[0] == i as i64 && row[1] == -(i as i64)));
    }
}

#[test]
fn filled_and_appended_rows_may_be_mixed() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ArrayWriter::new(Dtype::UInt16, &[1000]).create(dir.path().join("a.npy")).unwrap();
    writer.append(&[1u16; 1000]).unwrap();
    let fill = |value: u16| {
        move |out: &mut [u16]| -> Result<(), Error> {
            out.fill(value);
            Ok(())
        }
    };
    writer.fill(3..5, fill(3)).unwrap();
    writer.append(&[2u16; 2000]).unwrap();
    assert!(
        matches!(writer.append(&[9u16]), Err(Error::BadRequest(BadRequest::RowsWritten { rows })) if rows == (3..4)),
        "row 3 was filled"
    );
    writer.fill(5..6, fill(5)).unwrap();
    let array = finish(writer).unwrap();
    let firsts: Vec<u16> = array.view_fixed::<u16, Ix2>().unwrap().column(0).to_vec();
    assert_eq!(firsts, [1, 2, 2, 3, 3, 5]);
}

#[test]
fn rows_are_written_once_and_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npy");
    let writer = |rows: u64| ArrayWriter::new(Dtype::Float32, &[10]).rows(rows).create(&path).unwrap();
    let ok = |_: &mut [f32]| Ok::<(), Error>(());

    let w = writer(4);
    w.fill(0..2, ok).unwrap();
    assert!(w.fill(1..3, ok).is_err(), "row 1 twice");
    assert!(w.fill(3..5, ok).is_err(), "beyond the end");
    assert!(w.fill(2..3, |_: &mut [f64]| Ok::<(), Error>(())).is_err(), "another type");
    assert!(w.fill(2..3, |_: &mut [f32]| Err(Error::Cancelled)).is_err());
    w.fill(3..4, ok).unwrap();
    let missing = w.finish().unwrap_err().to_string();
    assert!(missing.contains("row 2"), "a fill that failed does not count: {missing}");

    let mut w = writer(2);
    w.append(&[0f32; 15]).unwrap();
    assert!(w.append(&[0f32; 6]).is_err(), "beyond the end");
    assert!(w.append_bytes(&[0; 3]).is_err(), "a cut element");
    assert!(w.finish().unwrap_err().to_string().contains("the last row has 20 of 40 bytes"));

    drop(writer(100_000));
    assert!(names_in(dir.path()).is_empty());
    assert!(ArrayWriter::new(Dtype::String, &[]).create(&path).is_err());
    assert!(ArrayWriter::new(Dtype::UInt8, &[1 << 40, 1 << 40]).create(&path).is_err());
    let small = ArrayWriter::new(Dtype::UInt8, &[64 << 20]).rows(1).memory(Budget::mib(20)).create(&path).unwrap();
    assert!(matches!(small.fill_bytes(0..1, |_| Ok::<(), Error>(())), Err(Error::Limit { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_order_of_fills_and_any_cut_of_appends_give_the_same_bytes(order in Just((0u64..20).collect::<Vec<_>>()).prop_shuffle(), cuts in prop::collection::vec(1usize..9000, 1..8)) {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..20 * 2048u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as u8).collect();
        let writer = ArrayWriter::new(Dtype::UInt8, &[2048]).create(dir.path().join("f.npy")).unwrap();
        for row in order {
            let from = row as usize * 2048;
            writer.fill_bytes(row..row + 1, |out| { out.copy_from_slice(&bytes[from..from + 2048]); Ok::<(), Error>(()) }).unwrap();
        }
        let filled = finish(writer).unwrap();
        prop_assert!(filled.as_bytes() == bytes);

        let mut writer = ArrayWriter::new(Dtype::UInt8, &[2048]).create(dir.path().join("a.npy")).unwrap();
        let mut rest = &bytes[..];
        for &len in cuts.iter().cycle() {
            let (now, later) = rest.split_at(len.min(rest.len()));
            writer.append_bytes(now).unwrap();
            rest = later;
            if rest.is_empty() { break }
        }
        let appended = finish(writer).unwrap();
        prop_assert!(appended.as_bytes() == bytes);
    }

    /// Values are written from where they are or by way of windows, whichever is better: nothing of that shows.
    #[test]
    fn values_views_and_appended_rows_are_the_same_array(ways in prop::collection::vec((0u8..3, 1u64..40), 1..12), bools in any::<bool>()) {
        const ROW: usize = 24 << 10;
        let dir = tempfile::tempdir().unwrap();
        let rows: u64 = ways.iter().map(|(_, rows)| rows).sum();
        let bytes: Vec<u8> = (0..rows as usize * ROW).map(|i| if bools { u8::from(i % 3 == 0) } else { ((i * 7) >> 4) as u8 }).collect();
        let dtype = if bools { Dtype::Bool } else { Dtype::UInt8 };
        let mut writer = ArrayWriter::new(dtype, &[3, 8 << 10]).memory(Budget::mib(24)).create(dir.path().join("v.npy")).unwrap();
        let mut start = 0;
        let mut appends = true;
        for (way, len) in ways {
            let range = start..start + len;
            let part = &bytes[start as usize * ROW..(start + len) as usize * ROW];
            match way {
                // Rows are appended behind those that were, so only at the front.
                0 if appends => writer.append_bytes(part).unwrap(),
                1 if !bools && part.len() < 4 << 20 => {
                    appends = false;
                    writer.fill_view(range, |mut view: ArrayViewMutD<'_, u8>| {
                        assert_eq!(view.shape(), [len as usize, 3, 8 << 10]);
                        view.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
                        Ok::<(), Error>(())
                    }).unwrap();
                }
                _ => {
                    appends = false;
                    prop_assert!(writer.write_bytes(range.clone(), &part[1..]).is_err());
                    writer.write_bytes(range.clone(), part).unwrap();
                    prop_assert!(writer.write_bytes(range, part).is_err(), "rows are written once");
                }
            }
            start += len;
        }
        prop_assert!(finish(writer).unwrap().as_bytes() == bytes);
    }
}

#[test]
#[expect(unsafe_code, reason = "opening somebody's file is unsafe; this one is ours")]
fn an_existing_array_is_opened_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, descr: &str, order: &str, shape: &str, data: &[u8]| {
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        while (text.len() + 11) % 64 != 0 {
            text.push(' ');
        }
        text.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.extend(data);
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    // SAFETY: the files were just written here, and nobody else knows them.
    let open = |path| unsafe { MmapArray::open(path) };
    let fields = write("st.npy", "<u2", "False", "(2, 3)", &[0; 12]);
    let text = fs::read(&fields).unwrap();
    let text = String::from_utf8_lossy(&text[10..text.len() - 12]).replace("'<u2'", "[('a', '<u2')]");
    fs::write(&fields, [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()).unwrap();
    assert!(matches!(open(fields), Err(Error::Unsupported { .. })), "structured");
    let bytes: Vec<u8> = [0u16, 1, 2, 3, 4, 5].iter().flat_map(|n| n.to_le_bytes()).collect();

    let c = open(write("c.npy", "<u2", "False", "(2, 3)", &bytes)).unwrap();
    assert_eq!(c.view_fixed::<u16, Ix2>().unwrap()[[1, 0]], 3);
    let f = open(write("f.npy", "<u2", "True", "(2, 3)", &bytes)).unwrap();
    assert_eq!(f.view_fixed::<u16, Ix2>().unwrap()[[1, 0]], 1);
    assert!(matches!(c.view::<i16>(), Err(Error::WrongDtype { .. })));
    assert!(matches!(c.view_fixed::<u16, Ix4>(), Err(Error::BadRequest(BadRequest::ViewDimensions { asked: 4, .. }))));

    for (descr, shape) in [("<V2", "(2, 3)"), ("|O", "(1,)"), ("<M8[ns]", "(1,)"), ("é", "(1,)"), ("", "(1,)")] {
        let path = write("x.npy", descr, "False", shape, &bytes);
        // SAFETY: as above.
        let as_float8 = unsafe { MmapArray::open_as(&path, Dtype::Float8E5M2) };
        assert!(matches!(as_float8, Err(Error::BadRequest(BadRequest::NotOfDtype { .. }))), "{descr}");
        assert!(matches!(open(write("x.npy", descr, "False", shape, &bytes)), Err(Error::Unsupported { .. })), "{descr}");
    }
    assert!(matches!(open(write("s.npy", "<u2", "False", "(2, 4)", &bytes)), Err(Error::Malformed { .. })), "too short");
    assert!(matches!(open(write("h.npy", "<u2", "False", "(4611686018427387904, 4)", &bytes)), Err(Error::Malformed { .. })));
    let b = open(write("b.npy", "|b1", "False", "(2,)", &[1, 2])).unwrap();
    assert!(matches!(b.view::<bool>(), Err(Error::Malformed { .. })), "2 is no bool");

    let big = open(write("big.npy", ">u2", "False", "(2, 3)", &bytes)).unwrap();
    assert_eq!((big.dtype(), big.byte_order()), (Dtype::UInt16, ByteOrder::Big));
    assert!(matches!(big.view::<u16>(), Err(Error::Unsupported { .. })), "of the other byte order");
    let text = open(write("u.npy", "<U1", "False", "(3,)", &bytes)).unwrap();
    assert_eq!(text.view_fixed::<u32, Ix2>().unwrap().shape(), [3, 1]);
    let text = open(write("s4.npy", "|S4", "False", "(3,)", &bytes)).unwrap();
    assert_eq!(text.view_fixed::<u8, Ix2>().unwrap().row(2).to_vec(), [4, 0, 5, 0]);

    let v = write("v.npy", "<V2", "False", "(6,)", &bytes);
    // SAFETY: as above.
    let v = unsafe { MmapArray::open_as(&v, Dtype::BFloat16) }.unwrap();
    assert_eq!(v.view::<half::bf16>().unwrap()[[1]].to_bits(), 1);
}

/// Fills a row, and during that the next one, down to the eighth.
fn nest(writer: &ArrayWriter, row: u64) -> Result<(), Error> {
    writer.fill(row..row + 1, |out: &mut [u8]| {
        out.fill(row as u8);
        if row % 8 < 7 { nest(writer, row + 1) } else { Ok(()) }
    })
}

#[test]
fn a_fill_inside_a_fill_does_not_wait_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let writer = ArrayWriter::new(Dtype::UInt8, &[1 << 20]).rows(24).memory(Budget::mib(20)).create(dir.path().join("n.npy")).unwrap();
    (0..3usize).into_par_iter().try_for_each(|outer| nest(&writer, outer as u64 * 8)).unwrap();
    let array = finish(writer).unwrap();
    assert!(array.as_bytes().chunks(1 << 20).enumerate().all(|(row, bytes)| bytes.iter().all(|&b| usize::from(b) == row)));
}

#[test]
fn rows_are_filled_while_appended_ones_wait_for_more() {
    const ROW: u64 = 64 << 10;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npy");
    let (done, filled) = mpsc::channel();
    std::thread::spawn(move || {
        for mib in [14, 16, 20, 24, 32, 40] {
            let writer = ArrayWriter::new(Dtype::UInt8, &[ROW]).memory(Budget::mib(mib)).overwrite(true);
            let mut writer = writer.rows(400).create(&path).unwrap();
            writer.append_bytes(&[1; 1000]).unwrap();
            // The most rows that may be filled at once.
            let mut rows = 390;
            while let Err(error) = writer.fill_bytes(400 - rows..400, |_| Ok(())) {
                let Error::Limit { allowed: Some(most), .. } = error else { panic!("{error}") };
                rows = (most / ROW).min(rows - 1);
            }
            done.send(mib).unwrap();
        }
    });
    for mib in [14, 16, 20, 24, 32, 40] {
        assert_eq!(filled.recv_timeout(Duration::from_secs(30)), Ok(mib), "a fill waits for a window that nobody finishes");
    }
}

#[test]
fn rows_without_bytes_are_only_counted() {
    let dir = tempfile::tempdir().unwrap();
    let ok = |out: &mut [f32]| -> Result<(), Error> {
        assert!(out.is_empty());
        Ok(())
    };
    let mut writer = ArrayWriter::new(Dtype::Float32, &[0]).create(dir.path().join("e.npy")).unwrap();
    writer.fill(0..7, ok).unwrap();
    assert!(writer.append(&[1f32]).is_err(), "a row has no elements");
    assert_eq!(writer.finish().unwrap().shape(), [7, 0]);
    let writer = ArrayWriter::new(Dtype::Float32, &[2]).create(dir.path().join("f.npy")).unwrap();
    writer.fill(0..0, ok).unwrap();
    assert_eq!(writer.finish().unwrap().shape(), [0, 2]);
}

fn write_ones(path: &std::path::Path, rows: usize) {
    let mut writer = ArrayWriter::new(Dtype::UInt8, &[]).create(path).unwrap();
    writer.append(&vec![1u8; rows]).unwrap();
    writer.finish().unwrap();
}

#[test]
fn arrays_of_an_output_directory_appear_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("arrays");
    let output = OutputDirectory::create(&target, &Options::new()).unwrap();
    write_ones(&output.path().join("x.npy"), 3);
    assert!(!target.exists());
    drop(output);
    assert_eq!(names_in(dir.path()), [""; 0]);

    let output = OutputDirectory::create(&target, &Options::new()).unwrap();
    write_ones(&output.path().join("x.npy"), 3);
    write_ones(&output.path().join("y.npy"), 3);
    output.publish(&["x.npy", "y.npy"]).unwrap();
    assert_eq!(names_in(dir.path()), ["arrays"]);
    assert_eq!(names_in(&target), ["x.npy", "y.npy"]);
}

#[test]
fn files_of_an_output_directory_replace_those_of_the_same_name_only_if_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("arrays");
    fs::create_dir(&target).unwrap();
    write_ones(&target.join("x.npy"), 3);
    fs::write(target.join("other"), "kept").unwrap();
    let refused = OutputDirectory::create(&target, &Options::new()).unwrap_err();
    assert_eq!(refused.code(), "output-exists");

    let output = OutputDirectory::create(&target, &Options::new().overwrite(true)).unwrap();
    write_ones(&output.path().join("x.npy"), 5);
    let before = fs::read(target.join("x.npy")).unwrap().len();
    output.publish(&["x.npy"]).unwrap();
    assert_eq!(names_in(&target), ["other", "x.npy"]);
    let len = fs::read(target.join("x.npy")).unwrap().len();
    assert_eq!(len, before + 2);

    // A name that a directory has cannot be replaced, and nothing else is.
    fs::create_dir(target.join("y.npy")).unwrap();
    let output = OutputDirectory::create(&target, &Options::new().overwrite(true)).unwrap();
    write_ones(&output.path().join("x.npy"), 7);
    write_ones(&output.path().join("y.npy"), 7);
    assert!(output.publish(&["x.npy", "y.npy"]).is_err());
    assert_eq!(names_in(&target), ["other", "x.npy", "y.npy"]);
    assert_eq!(fs::read(target.join("x.npy")).unwrap().len(), len);
}

#[test]
fn files_have_the_names_that_an_export_gives_them() {
    assert_eq!(OutputDirectory::file_name("conv2d/kernel"), "conv2d+kernel.npy");
    assert_eq!(OutputDirectory::file_name("../x"), "%2e.+x.npy");
}
