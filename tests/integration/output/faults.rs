//! After a failure, either nothing is left, or what was there before.

use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use mmconvert::reader::MemoryTensor;
use mmconvert::reader::{ReadContext, TensorReader};
use mmconvert::{BadRequest, Budget, CancelToken, Converter, Dtype, Error, Result, TensorSpec};

use crate::support::names_in;

/// Fails, or cancels, once this many bytes have been read.
#[derive(Debug)]
struct Faulty<'a> {
    inner: MemoryTensor<'a>,
    left: AtomicU64,
    cancel: Option<CancelToken>,
}

impl TensorReader for Faulty<'_> {
    fn spec(&self) -> &TensorSpec {
        self.inner.spec()
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        self.inner.read(elements, out, context)?;
        let enough = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(out.len() as u64));
        match (enough, &self.cancel) {
            (Ok(_), _) => Ok(()),
            (Err(_), Some(token)) => {
                token.cancel();
                Ok(())
            }
            (Err(_), None) => Err(BadRequest::Custom { detail: "the wire was cut".into() }.into()),
        }
    }
}

#[test]
fn a_reader_that_fails_anywhere_leaves_what_was_there() {
    const LEN: usize = 9_000_000;
    let bytes = vec![5u8; LEN];
    let spec = TensorSpec::new(Dtype::UInt8, vec![3000, 3000]).unwrap();
    for threads in [1, 4] {
        for left in [0, 1_000_000, 5_000_000, 8_900_000] {
            for cancel in [false, true] {
                for old in [None, Some("old")] {
                    let dir = tempfile::tempdir().unwrap();
                    let out = dir.path().join("out.npy");
                    if let Some(content) = old {
                        fs::write(&out, content).unwrap();
                    }
                    let token = CancelToken::new();
                    let inner = MemoryTensor::new(spec.clone(), &bytes).unwrap();
                    let reader = Faulty { inner, left: AtomicU64::new(left), cancel: cancel.then(|| token.clone()) };
                    let result = Converter::from_reader(Box::new(reader))
                        .threads(threads)
                        .memory(Budget::mib(16))
                        .overwrite(old.is_some())
                        .cancel(token)
                        .write(&out);
                    match result {
                        Err(Error::Cancelled) => assert!(cancel),
                        Err(Error::BadRequest(BadRequest::Custom { detail })) => assert!(!cancel && detail == "the wire was cut"),
                        other => panic!("{other:?}"),
                    }
                    assert_eq!(names_in(dir.path()), old.map(|_| "out.npy".to_owned()).into_iter().collect::<Vec<_>>());
                    assert_eq!(fs::read_to_string(&out).ok().as_deref(), old);
                }
            }
        }
    }
}

#[test]
fn an_existing_output_is_kept_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.npy");
    fs::write(&out, "old").unwrap();
    let bytes = [1u8; 4];
    let spec = TensorSpec::new(Dtype::UInt8, vec![4]).unwrap();
    let inner = MemoryTensor::new(spec, &bytes).unwrap();
    let reader = Faulty { inner, left: AtomicU64::new(0), cancel: None };
    assert!(matches!(Converter::from_reader(Box::new(reader)).write(&out), Err(Error::OutputExists { .. })));
    assert_eq!(fs::read_to_string(&out).unwrap(), "old");
}

#[test]
fn too_little_memory_is_refused_with_the_amount_needed() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = [1u8; 4];
    let spec = TensorSpec::new(Dtype::UInt8, vec![4]).unwrap();
    let reader = || Box::new(MemoryTensor::new(spec.clone(), &bytes).unwrap());
    let Err(Error::Limit { asked, allowed, .. }) =
        Converter::from_reader(reader()).memory(Budget::bytes(65536)).write(dir.path().join("o.npy"))
    else {
        panic!("64 KiB cannot do")
    };
    assert_eq!(allowed, Some(65536));
    Converter::from_reader(reader()).memory(Budget::bytes(asked)).write(dir.path().join("o.npy")).unwrap();
}
