//! Casts equal the measured results of NumPy and `ml_dtypes`.

use std::fs;

use mmconvert::{Cast, Dtype, Error};

use crate::support::data;

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// The columns of a row of `numpy-casts.csv`.
fn rows(text: &str) -> impl Iterator<Item = [&str; 5]> {
    text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>().try_into().unwrap())
}

#[test]
fn casts_equal_numpy_for_every_measured_value() {
    let text = fs::read_to_string(data("numpy-casts.csv")).unwrap();
    let mut compared = 0;
    for [from, to, source, expected, flags] in rows(&text) {
        let cast = Cast::new(Dtype::from_name(from).unwrap(), Dtype::from_name(to).unwrap());
        let flags: Vec<&str> = flags.split('+').collect();
        if flags.contains(&"unsupported") {
            assert!(matches!(cast, Err(Error::Unsupported { .. })), "{from} to {to}");
            continue;
        }
        let cast = cast.unwrap();
        if flags.contains(&"raw") && from == "bool" {
            // Bytes other than 0 and 1 become 1 here in every cast, even where NumPy copies them unchanged.
            let ones: Vec<[&str; 5]> = rows(&text).filter(|row| row[..3] == [from, to, "01"]).collect();
            check(&cast, &unhex(source), &[unhex(ones[0][3])], [from, to, source]);
            compared += 1;
            continue;
        }
        if flags.contains(&"oor") && !cfg!(target_arch = "x86_64") {
            continue;
        }
        let expected: Vec<Vec<u8>> = expected.split('|').map(unhex).collect();
        check(&cast, &unhex(source), &expected, [from, to, source]);
        compared += 1;
    }
    assert!(compared >= 21_428 || !cfg!(target_arch = "x86_64"), "{compared} rows");
}

/// Casts one element alone and many in a row, at odd addresses. All must become one of `expected`.
fn check(cast: &Cast, source: &[u8], expected: &[Vec<u8>], what: [&str; 3]) {
    for count in [1, 3, 67] {
        let from = [&[0][..], &source.repeat(count)].concat();
        let mut to = vec![0xaa; 1 + count * expected[0].len()];
        cast.run(&from[1..], &mut to[1..]).unwrap();
        for found in to[1..].chunks(expected[0].len()) {
            assert!(expected.iter().any(|expected| expected == found), "{what:?} gives {found:02x?}, expected {expected:02x?}");
        }
    }
}

/// What NumPy says: `values.astype(to).astype(from) == values`, with the sign of integers compared, too.
#[test]
fn a_strict_cast_names_the_first_value_that_changes() {
    let ints = |values: &[i64]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    for (values, to, changed) in [
        (ints(&[0, -1, 127, 128]), Dtype::Int8, Some(3)),
        (ints(&[0, 1, -1]), Dtype::UInt64, Some(2)),
        (ints(&[1 << 24, (1 << 24) + 1]), Dtype::Float32, Some(1)),
        (ints(&[1 << 24, 2]), Dtype::Float32, None),
        (ints(&[0, 1, 2]), Dtype::Bool, Some(2)),
        (ints(&[i64::MAX]), Dtype::Int64, None),
    ] {
        let cast = Cast::new(Dtype::Int64, to).unwrap();
        let mut out = vec![0; values.len() / 8 * to.itemsize().unwrap() as usize];
        let result = cast.run_strict(&values, &mut out);
        match (changed, result) {
            (None, result) => result.unwrap(),
            (Some(at), Err(Error::Lossy { index, .. })) => assert_eq!(index, [at], "{to}"),
            (Some(_), result) => panic!("{to}: {result:?}"),
        }
    }
}
