//! Ours and everything a user would pick instead.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::ArrayViewMut2;
use ndarray_npy::ViewMutNpyExt;
use npyz::WriterBuilder;

use crate::support::{COLUMNS, Checkpoint, cgroup, disk, python};

/// Bytes that the Rust peers take at once, as the Python ones do: 65536 rows of 64.
const SLICE_BYTES: usize = 16 << 20;

/// The tensor and where it goes.
pub struct Task {
    pub checkpoint: Checkpoint,
    pub out: PathBuf,
    pub mib: u64,
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
            Self::Dd => "dd reads the source",
            Self::ReadAndWrite => "dd reads while dd writes zeros",
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

    /// Whether it needs a Python with TensorFlow.
    pub fn needs_tensorflow(self) -> bool {
        matches!(self, Self::TfGetTensor | Self::TfSlices)
    }

    /// The command that runs it under a limit.
    pub fn command(self, task: &Task, limit: Option<u64>) -> Command {
        let Task { checkpoint: Checkpoint { prefix, shard, rows }, out, mib } = task;
        let numbers = [rows.to_string(), COLUMNS.to_string()];
        let script = |way: &str| {
            let mut command = python::peers("ram_limits");
            command.arg(way).args([prefix, out]).args(&numbers);
            command
        };
        match self {
            Self::Dd => disk::read(shard),
            Self::ReadAndWrite => {
                let both = "dd if=\"$0\" of=/dev/null bs=1M & dd if=/dev/zero of=\"$1\" bs=4M count=$2 oflag=direct conv=fsync; wait";
                let mut command = Command::new("sh");
                command.args(["-c", both]).args([shard, out]).arg((mib / 4).to_string());
                command
            }
            Self::Mmconvert | Self::MmconvertMap => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
                command.arg("convert").arg(prefix).args(["-q", "-o"]).arg(out);
                if let Some(bytes) = limit {
                    command.args(["--memory", &cgroup::memory_option(bytes)]);
                }
                if self == Self::MmconvertMap {
                    command.args(["--method", "map"]);
                }
                command
            }
            Self::Cp => disk::copy(shard, out),
            Self::NdarrayNpy | Self::Npyz => {
                let mut command = Command::new(std::env::current_exe().expect("the path of this bench"));
                command.args(["--way", self.key()]).args([shard, out]).args(&numbers);
                command
            }
            Self::OpenMemmap => script("open_memmap"),
            Self::TfGetTensor => script("tf_get_tensor"),
            Self::TfSlices => script("tf_slices"),
        }
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

#[expect(unsafe_code, reason = "a peer that maps its output; nobody else touches it")]
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
