//! Interleaved rounds: every round runs each way once, so that a slow minute of the machine slows all of them.

use std::time::Instant;

/// Runs that take longer are reported on standard error as they end.
const REPORT_SECONDS: f64 = 1.0;

/// One run of one way.
#[derive(Debug, Clone, Default)]
pub struct Run {
    pub seconds: f64,
    pub success: bool,
    pub stdout: String,
    /// Why it failed: the last line on standard error, else the exit status.
    pub error: String,
    /// The most memory that the cgroup was charged, page cache included.
    pub peak_bytes: Option<u64>,
    /// Seconds since the start, and bytes charged.
    pub samples: Vec<(f64, u64)>,
}

impl Run {
    pub fn of(seconds: f64) -> Self {
        Self { seconds, success: true, ..Self::default() }
    }

    pub fn time(work: impl FnOnce()) -> Self {
        let started = Instant::now();
        work();
        Self::of(started.elapsed().as_secs_f64())
    }

    /// Takes the seconds that the command printed: they leave out what it imports.
    pub fn with_printed_seconds(self) -> Self {
        let seconds = self.stdout.trim().parse();
        Self { success: self.success && seconds.is_ok(), seconds: seconds.unwrap_or(self.seconds), ..self }
    }
}

/// One way and its runs: a row of the table.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    /// Bytes that a run handles, where that is known.
    pub bytes: Option<u64>,
    pub runs: Vec<Run>,
}

impl Row {
    /// The seconds of the runs that succeeded, in ascending order.
    pub fn seconds(&self) -> Vec<f64> {
        let mut seconds: Vec<f64> = self.runs.iter().filter(|run| run.success).map(|run| run.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    }

    /// The median; none if any run failed.
    pub fn median(&self) -> Option<f64> {
        let seconds = self.seconds();
        let middle = |i: usize| seconds.get(i / 2).copied();
        let median = middle(seconds.len()).zip(middle(seconds.len().saturating_sub(1))).map(|(upper, lower)| f64::midpoint(lower, upper));
        median.filter(|_| seconds.len() == self.runs.len())
    }

    /// The most memory of all runs.
    pub fn peak(&self) -> Option<u64> {
        self.runs.iter().filter_map(|run| run.peak_bytes).max()
    }
}

/// A way's row and how it is run.
type Way<'a> = (Row, Box<dyn FnMut() -> Run + 'a>);

/// Ways that are run in turn.
pub struct Rounds<'a> {
    count: u64,
    ways: Vec<Way<'a>>,
}

impl<'a> Rounds<'a> {
    pub fn new(count: u64) -> Self {
        Self { count, ways: Vec::new() }
    }

    pub fn add(&mut self, name: impl Into<String>, bytes: impl Into<Option<u64>>, run: impl FnMut() -> Run + 'a) {
        self.ways.push((Row { name: name.into(), bytes: bytes.into(), runs: Vec::new() }, Box::new(run)));
    }

    /// Runs every way once, not counted.
    pub fn warm_up(&mut self) {
        for (_, run) in &mut self.ways {
            run();
        }
    }

    pub fn run(mut self) -> Vec<Row> {
        for round in 1..=self.count {
            for (row, run) in &mut self.ways {
                let run = run();
                if run.seconds > REPORT_SECONDS || !run.success {
                    let failed = if run.success { String::new() } else { format!(", failed: {}", run.error) };
                    eprintln!("round {round} of {}: {}: {:.2} s{failed}", self.count, row.name, run.seconds);
                }
                row.runs.push(run);
            }
        }
        self.ways.into_iter().map(|(row, _)| row).collect()
    }
}
