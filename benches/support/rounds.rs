//! Interleaved rounds: every round runs each way once, so that a slow minute of the machine slows all of them.

use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Runs that take longer are reported on standard error as they end.
const REPORT_SECONDS: f64 = 1.0;

/// What the kernel counted of processes that have ended.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub user_seconds: f64,
    pub system_seconds: f64,
    /// Context switches, voluntary or not.
    pub switches: f64,
}

impl Usage {
    /// That of all processes that this one has started and waited for.
    pub fn of_children() -> Self {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the usage of children");
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
        Self { user_seconds: seconds(usage.user_time()), system_seconds: seconds(usage.system_time()), switches: switches as f64 }
    }

    /// What has been added since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            user_seconds: self.user_seconds - before.user_seconds,
            system_seconds: self.system_seconds - before.system_seconds,
            switches: self.switches - before.switches,
        }
    }
}

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
    pub usage: Option<Usage>,
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

    /// Takes the figures that the command printed, which leave out what it imports: the seconds, and then, if it has counted them, user
    /// seconds, system seconds and context switches.
    pub fn with_printed_figures(self) -> Self {
        let figures: Option<Vec<f64>> = self.stdout.split_whitespace().map(|word| word.parse().ok()).collect();
        let (seconds, usage) = match figures.as_deref() {
            Some(&[seconds]) => (Some(seconds), None),
            Some(&[seconds, user_seconds, system_seconds, switches]) => {
                (Some(seconds), Some(Usage { user_seconds, system_seconds, switches }))
            }
            _ => (None, None),
        };
        Self { success: self.success && seconds.is_some(), seconds: seconds.unwrap_or(self.seconds), usage, ..self }
    }
}

/// One way and its runs: a row of the table.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    /// Bytes that a run handles, where that is known.
    pub bytes: Option<u64>,
    pub runs: Vec<Run>,
    /// How it did it, where it says so.
    pub method: Option<String>,
    /// System calls of a run that was not timed.
    pub calls: Option<u64>,
}

impl Row {
    /// The seconds of the runs that succeeded, in ascending order.
    pub fn seconds(&self) -> Vec<f64> {
        self.ascending(|run| Some(run.seconds))
    }

    /// The median; none if any run failed.
    pub fn median(&self) -> Option<f64> {
        self.median_of(|run| Some(run.seconds))
    }

    /// The median of a figure; none if any run failed or lacks it.
    pub fn median_of(&self, figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        let figures = self.ascending(figure);
        let middle = |i: usize| figures.get(i / 2).copied();
        let median = middle(figures.len()).zip(middle(figures.len().saturating_sub(1))).map(|(upper, lower)| f64::midpoint(lower, upper));
        median.filter(|_| figures.len() == self.runs.len())
    }

    fn ascending(&self, figure: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        let mut figures: Vec<f64> = self.runs.iter().filter(|run| run.success).filter_map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures
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
    alternates: bool,
    ways: Vec<Way<'a>>,
}

impl<'a> Rounds<'a> {
    pub fn new(count: u64) -> Self {
        Self { count, alternates: false, ways: Vec::new() }
    }

    /// Every second round goes backwards, so that no way always runs behind the same one.
    pub fn alternating(count: u64) -> Self {
        Self { alternates: true, ..Self::new(count) }
    }

    pub fn add(&mut self, name: impl Into<String>, bytes: impl Into<Option<u64>>, run: impl FnMut() -> Run + 'a) {
        let row = Row { name: name.into(), bytes: bytes.into(), runs: Vec::new(), method: None, calls: None };
        self.ways.push((row, Box::new(run)));
    }

    /// Runs every way once, not counted.
    pub fn warm_up(&mut self) {
        for (_, run) in &mut self.ways {
            run();
        }
    }

    pub fn run(mut self) -> Vec<Row> {
        for round in 1..=self.count {
            let last = self.ways.len().saturating_sub(1);
            for i in 0..self.ways.len() {
                let (row, run) = &mut self.ways[if self.alternates && round % 2 == 0 { last - i } else { i }];
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
