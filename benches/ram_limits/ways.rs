//! Ours and everything a user would pick instead.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use ndarray::ArrayViewMut2;
use ndarray_npy::ViewMutNpyExt;
use npyz::WriterBuilder;

/// Bytes that the Rust rivals take at once, as the Python ones do: 65536 rows of 64.
const SLICE_BYTES: usize = 16 << 20;

/// The tensor and where it goes.
#[derive(Debug)]
pub struct Task {
    pub prefix: PathBuf,
    pub shard: PathBuf,
    pub out: PathBuf,
    pub rows: u64,
    pub columns: u64,
}

/// One way of getting the tensor into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Dd,
    ReadAndWrite,
    Mmconvert,
    MmconvertMap,
    Cp,
    OpenMemmap,
    NdarrayNpy,
    Npyz,
    TfGetTensor,
    TfSlices,
}

impl Way {
    pub const ALL: [Self; 10] = [
        Self::Dd,
        Self::ReadAndWrite,
        Self::Mmconvert,
        Self::MmconvertMap,
        Self::Cp,
        Self::OpenMemmap,
        Self::NdarrayNpy,
        Self::Npyz,
        Self::TfGetTensor,
        Self::TfSlices,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Dd => "dd, reads only (floor)",
            Self::ReadAndWrite => "dd reads while dd writes zeros (the disk)",
            Self::Mmconvert => "mmconvert",
            Self::MmconvertMap => "mmconvert --method map",
            Self::Cp => "cp + sync, converts nothing",
            Self::OpenMemmap => "NumPy open_memmap loop",
            Self::NdarrayNpy => "ndarray-npy, mapped",
            Self::Npyz => "npyz, streamed",
            Self::TfGetTensor => "TensorFlow get_tensor + np.save",
            Self::TfSlices => "TensorFlow slices (2 of them, extrapolated)",
        }
    }

    /// What it is called in the list `WAYS`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Dd => "dd",
            Self::ReadAndWrite => "disk",
            Self::Mmconvert => "mmconvert",
            Self::MmconvertMap => "map",
            Self::Cp => "cp",
            Self::OpenMemmap => "open_memmap",
            Self::NdarrayNpy => "ndarray-npy",
            Self::Npyz => "npyz",
            Self::TfGetTensor => "tf",
            Self::TfSlices => "tf-slices",
        }
    }

    /// Whether it prints its own seconds, which leave imports out.
    pub fn prints_seconds(self) -> bool {
        matches!(self, Self::OpenMemmap | Self::TfGetTensor | Self::TfSlices)
    }

    /// The command, or why there is none.
    pub fn command(self, task: &Task, memory: Option<u64>, python: Option<&Path>) -> Result<Vec<OsString>, &'static str> {
        let mut words: Vec<OsString> = Vec::new();
        let script = |way: &str| -> Result<Vec<OsString>, &'static str> {
            let python = python.ok_or("needs a Python with TensorFlow: PYTHON=…, or tests/run makes one")?;
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/ram_limits/rivals.py");
            let numbers = [task.rows.to_string().into(), task.columns.to_string().into()];
            let front: [OsString; 5] = [python.into(), script.into(), way.into(), task.prefix.clone().into(), task.out.clone().into()];
            Ok(front.into_iter().chain(numbers).collect())
        };
        match self {
            Self::Dd => {
                let mut input = OsString::from("if=");
                input.push(&task.shard);
                words.extend(["dd".into(), input, "of=/dev/null".into(), "bs=1M".into()]);
            }
            Self::ReadAndWrite => {
                let both = "dd if=\"$0\" of=/dev/null bs=1M & dd if=/dev/zero of=\"$1\" bs=4M count=$2 oflag=direct conv=fsync; wait";
                words.extend(["sh".into(), "-c".into(), both.into(), task.shard.clone().into(), task.out.clone().into()]);
                words.push((task.rows * task.columns / (1 << 20)).to_string().into());
            }
            Self::Mmconvert | Self::MmconvertMap => {
                words.extend([env!("CARGO_BIN_EXE_mmconvert").into(), "convert".into(), task.prefix.clone().into(), "-q".into()]);
                words.extend(["-o".into(), task.out.clone().into()]);
                if let Some(bytes) = memory {
                    words.extend(["--memory".into(), bytes.to_string().into()]);
                }
                if self == Self::MmconvertMap {
                    words.extend(["--method".into(), "map".into()]);
                }
            }
            Self::Cp => {
                words.extend(["sh".into(), "-c".into(), "cp \"$0\" \"$1\" && sync \"$1\"".into()]);
                words.extend([task.shard.clone().into(), task.out.clone().into()]);
            }
            Self::NdarrayNpy | Self::Npyz => {
                words.push(std::env::current_exe().map_err(|_| "the bench does not know where it is")?.into());
                words.extend(["--way".into(), if self == Self::Npyz { "npyz".into() } else { "ndarray-npy".into() }]);
                words.extend([task.shard.clone().into(), task.out.clone().into()]);
                words.extend([task.rows.to_string().into(), task.columns.to_string().into()]);
            }
            Self::OpenMemmap => return script("open_memmap"),
            Self::TfGetTensor => return script("tf_get_tensor"),
            Self::TfSlices => return script("tf_slices"),
        }
        Ok(words)
    }
}

/// The two Rust crates, run as a process of their own: `--way NAME SHARD OUT ROWS COLUMNS`.
pub fn run_here(arguments: &[String]) {
    let [way, shard, out, rows, columns] = arguments else { panic!("--way NAME SHARD OUT ROWS COLUMNS") };
    let (rows, columns) = (rows.parse().expect("rows"), columns.parse().expect("columns"));
    match way.as_str() {
        "npyz" => npyz_stream(Path::new(shard), Path::new(out), rows, columns),
        _ => ndarray_npy_map(Path::new(shard), Path::new(out), rows, columns),
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn slices(shard: &Path, mut each: impl FnMut(&[u8])) {
    let mut shard = BufReader::with_capacity(SLICE_BYTES, File::open(shard).expect("the shard"));
    let mut buffer = vec![0; SLICE_BYTES];
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match shard.read(&mut buffer[filled..]).expect("a read") {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            return;
        }
        each(&buffer[..filled]);
    }
}

fn npyz_stream(shard: &Path, out: &Path, rows: u64, columns: u64) {
    let file = BufWriter::with_capacity(1 << 20, File::create(out).expect("an output"));
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&[rows, columns]).writer(file).begin_nd().expect("a header");
    slices(shard, |bytes| writer.extend(floats(bytes)).expect("a write"));
    writer.finish().expect("the end");
    File::open(out).and_then(|file| file.sync_all()).expect("a sync");
}

#[expect(unsafe_code, reason = "a rival that maps its output; nobody else touches it")]
fn ndarray_npy_map(shard: &Path, out: &Path, rows: u64, columns: u64) {
    let shape = (usize::try_from(rows).expect("rows"), usize::try_from(columns).expect("columns"));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(out).expect("an output");
    ndarray_npy::write_zeroed_npy::<f32, _>(&file, shape).expect("a header");
    // SAFETY: the file was just made and is used by nobody else.
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file) }.expect("a map");
    let mut view = ArrayViewMut2::<f32>::view_mut_npy(&mut map).expect("a view");
    let mut to = view.as_slice_mut().expect("contiguous").iter_mut();
    slices(shard, |bytes| {
        for (value, place) in floats(bytes).zip(to.by_ref()) {
            *place = value;
        }
    });
    file.sync_all().expect("a sync");
}

/// Takes the clean pages of a file out of the page cache.
pub fn evict(path: &Path) {
    let mut input = OsString::from("if=");
    input.push(path);
    let _ = std::process::Command::new("sync").status();
    let _ = std::process::Command::new("dd").arg(input).args(["iflag=nocache", "count=0"]).stderr(std::process::Stdio::null()).status();
}

/// Brings a file into the page cache.
pub fn warm(path: &Path) {
    let mut buffer = vec![0; 1 << 20];
    let mut file = File::open(path).expect("the shard");
    while file.read(&mut buffer).expect("a read") > 0 {}
}

/// Removes an output and waits until the disk has nothing left to do.
pub fn clear(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = std::process::Command::new("sync").status();
    let _ = std::io::stdout().flush();
}
