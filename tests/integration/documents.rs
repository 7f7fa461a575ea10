//! The examples in the documents are run, and what they print is compared with what the documents say.
//!
//! In a block of `console`, lines that start with `$ ` are commands, and the lines after each are what it prints; a command whose output
//! starts with `error: ` has to fail. Blocks of `sh` and `python` are scripts that have to succeed; `print(…)  # text` says what is
//! printed. Blocks of `pycon` are Python sessions, which `doctest` runs; `...` stands for any text. Each document is run twice in one
//! directory, like a reader who tries it again. Rust blocks are doctests of the library.
//!
//! A comment before a block says what it needs (`<!-- needs: mmconvert, tensorflow -->`), or that it is not run here
//! (`<!-- not run: why -->`). Python is the first with NumPy of `PYTHON`, `target/oracle/bin/python` and `python3`; TensorFlow is that of
//! `MMCONVERT_TENSORFLOW`, and has to be a package of that Python; packages are those of that Python. What is skipped is said on stderr.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{mmconvert, project};

/// Stands for any text in a line, and alone in a line for any number of lines.
const ANYTHING: char = '…';
const WITHOUT_INSTALLING: &str = "cargo run --release -- ";
const SHELL: &[&str] = &["sh", "-e"];
const DOCTEST: &[&str] = &["python3", "-m", "doctest", "-o", "ELLIPSIS"];

struct Block {
    /// `console`, `sh`, `python`, `pycon`.
    kind: String,
    line: usize,
    text: String,
    needs: Vec<String>,
    not_run: Option<String>,
}

/// The fenced blocks of a document.
fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut comment = String::new();
    let mut lines = document.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            let said = |what: &str| comment.strip_prefix(what).map(str::trim).map(str::to_owned);
            let needs = said("needs:").map(|needs| needs.split(',').map(|need| need.trim().to_owned()).collect());
            let (kind, text, not_run) = (kind.to_owned(), text.join("\n"), said("not run:"));
            blocks.push(Block { kind, line: at + 1, text, needs: needs.unwrap_or_default(), not_run });
        }
        match line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->")) {
            Some(inner) => inner.clone_into(&mut comment),
            None if line.is_empty() => {}
            None => comment.clear(),
        }
    }
    blocks
}

/// Commands of a block of `console`, each with what it prints.
fn commands(text: &str) -> Vec<(String, Vec<&str>)> {
    let mut commands: Vec<(String, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
            (None, Some((command, printed))) if printed.is_empty() && command.ends_with('\\') => {
                command.push('\n');
                command.push_str(line);
            }
            (None, Some((_, printed))) => printed.push(line),
            (None, None) => panic!("{line:?} is before the first command"),
        }
    }
    commands
}

/// A line without what differs from run to run and from file system to file system: seconds, and the method.
fn masked(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let masked = words.iter().enumerate().map(|(at, word)| {
        let is_time = word.contains('.') && word.parse::<f64>().is_ok();
        match (*word, words.get(at + 1)) {
            (_, Some(&("s" | "s,"))) if is_time => "TIME",
            ("(clone)," | "(uncached)," | "(portable),", _) => "(METHOD),",
            (word, _) => word,
        }
    });
    masked.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

fn is_line_alike(expected: &str, actual: &str) -> bool {
    let (expected, mut rest) = (masked(expected), &masked(actual)[..]);
    let parts: Vec<&str> = expected.split(ANYTHING).collect();
    let [first, between @ .., last] = &parts[..] else { return expected == rest };
    let Some(behind) = rest.strip_prefix(first) else { return false };
    rest = behind;
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn is_alike(expected: &[&str], actual: &[&str]) -> bool {
    match (expected, actual) {
        ([], []) => true,
        (["…", expected @ ..], _) => (0..=actual.len()).any(|skipped| is_alike(expected, &actual[skipped..])),
        ([wanted, expected @ ..], [line, actual @ ..]) => is_line_alike(wanted, line) && is_alike(expected, actual),
        _ => false,
    }
}

/// What examples are run with, and where.
struct Room {
    dir: tempfile::TempDir,
    /// A directory of its own, first on `PATH`.
    bin: tempfile::TempDir,
    python: Option<PathBuf>,
    tensorflow: Option<PathBuf>,
    has_ffmpeg: bool,
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The first Python with NumPy. One that is named has to have it.
fn python() -> Option<PathBuf> {
    let has_numpy = |python: &Path| succeeds(Command::new(python).args(["-c", "import numpy"]));
    if let Some(named) = std::env::var_os("PYTHON").map(PathBuf::from) {
        assert!(has_numpy(&named), "PYTHON is {}, which cannot import NumPy", named.display());
        return Some(named);
    }
    [project().join("target/oracle/bin/python"), "python3".into()].into_iter().find(|python| has_numpy(python))
}

impl Room {
    fn new() -> Self {
        let (dir, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(project().join("tests"), dir.path().join("tests")).unwrap();
        symlink(env!("CARGO_BIN_EXE_mmconvert"), bin.path().join("mmconvert")).unwrap();
        let python = python();
        if let Some(python) = &python {
            // A link would lose the packages of a virtual environment.
            let wrapper = bin.path().join("python3");
            fs::write(&wrapper, format!("#!/bin/sh\nexec '{}' \"$@\"\n", python.display())).unwrap();
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let tensorflow = std::env::var_os("MMCONVERT_TENSORFLOW").map(PathBuf::from);
        Self { dir, bin, python, tensorflow, has_ffmpeg: succeeds(Command::new("ffmpeg").arg("-version")) }
    }

    fn has(&self, need: &str) -> bool {
        match need {
            "numpy" => self.python.is_some(),
            // Examples make the inputs and graphs that TensorFlow computes with Python.
            "tensorflow" => cfg!(feature = "tensorflow") && self.tensorflow.is_some() && self.has_package(need),
            "ffmpeg" => self.has_ffmpeg,
            "mmconvert" => self.python_runs("import mmconvert"),
            "dask" | "h5py" | "jax" | "ml_dtypes" | "torch" | "zarr" => self.has_package(need),
            other => panic!("{other:?} is nothing that an example may need"),
        }
    }

    fn python_runs(&self, code: &str) -> bool {
        let Some(python) = &self.python else { return false };
        succeeds(Command::new(python).args(["-c", code]).current_dir(self.dir.path()))
    }

    /// Whether Python finds a package. It is not imported, which takes seconds for some.
    fn has_package(&self, name: &str) -> bool {
        self.python_runs(&format!("import importlib.util, sys; sys.exit(importlib.util.find_spec('{name}') is None)"))
    }

    /// Runs a script of `program`, whose errors go where its output goes if `is_merged`.
    fn run(&self, program: &[&str], script: &str, is_merged: bool) -> Output {
        let file = self.bin.path().join("script");
        fs::write(&file, if is_merged { format!("exec 2>&1\n{script}\n") } else { format!("{script}\n") }).unwrap();
        let mut path = self.bin.path().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new(program[0]);
        command.args(&program[1..]);
        if let Some(tensorflow) = &self.tensorflow {
            command.env("TENSORFLOW_DIR", tensorflow);
        }
        command.arg(file).current_dir(self.dir.path()).env("PATH", path).env_remove("NO_COLOR").output().unwrap()
    }

    fn run_block(&self, block: &Block, place: &str, is_first: bool) {
        let skipped = |what: &str, why: &str| {
            // Not captured, unlike what macros print: it is said where tests pass, too.
            if is_first {
                let _ = writeln!(io::stderr(), "SKIPPED: {place}: {what}{why}");
            }
        };
        let mut needs: Vec<&str> = block.needs.iter().map(String::as_str).collect();
        if matches!(&block.kind[..], "python" | "pycon") {
            needs.push("numpy");
        }
        if let Some(why) = &block.not_run {
            return skipped("", why);
        }
        if let Some(need) = needs.iter().find(|need| !self.has(need)) {
            return skipped("there is no ", need);
        }
        match &block.kind[..] {
            "console" => {
                for (command, printed) in commands(&block.text) {
                    if command.contains("python3") && !self.has("numpy") {
                        return skipped("there is no numpy for: ", &command);
                    }
                    let output = self.run(SHELL, &command.replace(WITHOUT_INSTALLING, "mmconvert "), true);
                    let actual = String::from_utf8_lossy(&output.stdout);
                    let fails = printed.iter().any(|line| line.starts_with("error: "));
                    assert_eq!(output.status.success(), !fails, "{place}: {command}\n{actual}");
                    let lines: Vec<&str> = actual.lines().collect();
                    assert!(
                        is_alike(&printed, &lines),
                        "{place}: {command}\nis said to print\n{}\nand prints\n{actual}",
                        printed.join("\n")
                    );
                }
            }
            "sh" => {
                let output = self.run(SHELL, &block.text.replace(WITHOUT_INSTALLING, "mmconvert "), true);
                assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stdout));
            }
            "python" => {
                let output = self.run(&["python3"], &block.text, false);
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{place}: {errors}");
                let prints: Vec<&str> = block.text.lines().filter(|line| line.starts_with("print(")).collect();
                let expected: Vec<&str> = prints.iter().filter_map(|line| Some(line.rsplit_once("  # ")?.1)).collect();
                assert_eq!(prints.len(), expected.len(), "{place}: each print(…) says what it prints");
                let actual = String::from_utf8_lossy(&output.stdout);
                let lines: Vec<&str> = actual.lines().collect();
                assert!(is_alike(&expected, &lines), "{place}: is said to print\n{}\nand prints\n{actual}", expected.join("\n"));
            }
            "pycon" => {
                let output = self.run(DOCTEST, &block.text, false);
                let said = [output.stdout, output.stderr].concat();
                assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&said));
            }
            kind => assert!(matches!(kind, "text" | "toml") || kind.starts_with("rust"), "{place}: what is a block of {kind:?}?"),
        }
    }
}

fn read(document: &str) -> String {
    fs::read_to_string(project().join(document)).unwrap()
}

/// Runs all examples of a document, twice.
fn run_examples(document: &str) {
    let (text, room) = (read(document), Room::new());
    let blocks = blocks(&text);
    for is_first in [true, false] {
        for block in &blocks {
            room.run_block(block, &format!("{document}:{}", block.line), is_first);
        }
    }
}

#[test]
fn the_examples_of_the_readme_run() {
    run_examples("README.md");
}

#[test]
fn the_examples_of_the_command_line_run() {
    run_examples("docs/cli.md");
}

#[test]
fn the_examples_of_sources_run() {
    run_examples("docs/sources.md");
}

#[test]
fn the_examples_of_python_run() {
    run_examples("docs/python.md");
}

/// Public names of the Python package, and arguments of its functions.
#[test]
fn every_name_and_every_argument_of_python_is_documented() {
    let text = read("docs/python.md");
    let package = read("python/mmconvert/__init__.py");
    let names = package.split_once("__all__ = [").unwrap().1.split(']').next().unwrap().split('"').skip(1).step_by(2);
    let mut wanted: Vec<String> = names.filter(|name| *name != "__version__").map(str::to_owned).collect();
    for (file, function) in [("conversion", "convert"), ("prediction", "predict"), ("verification", "verify"), ("sources", "open")] {
        let file = read(&format!("python/mmconvert/{file}.py"));
        let signature = file.split_once(&format!("\ndef {function}(")).unwrap().1.split(") ->").next().unwrap();
        let arguments = signature.lines().filter_map(|line| Some(line.strip_prefix("    ")?.split_once(':')?.0));
        wanted.extend(arguments.filter(|name| !name.starts_with('*')).map(str::to_owned));
    }
    assert!(wanted.len() > 50, "{wanted:?}");
    for name in wanted {
        let is_named = text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
        assert!(is_named, "docs/python.md lacks {name}");
    }
}

#[test]
fn every_flag_and_every_format_is_documented() {
    let cli = read("docs/cli.md");
    for command in ["ls", "info", "convert", "verify", "completions"] {
        assert!(cli.contains(&format!("mmconvert {command}")), "docs/cli.md lacks {command}");
        let help = String::from_utf8(mmconvert([command, "--help"]).stdout).unwrap();
        let flags = help.lines().filter_map(|line| {
            let line = line.trim_start();
            let line = if line.starts_with('-') { line } else { return None };
            line.split([' ', ',']).find(|word| word.starts_with("--"))
        });
        for flag in flags {
            let is_named =
                cli.match_indices(flag).any(|(at, _)| !cli[at + flag.len()..].starts_with(|c: char| c == '-' || c.is_alphanumeric()));
            assert!(is_named, "docs/cli.md lacks {flag} of {command}");
        }
    }
    let sources = read("docs/sources.md");
    for format in mmconvert::formats() {
        assert!(sources.contains(&format!("`{format}`")), "docs/sources.md lacks {format}");
    }
}

#[test]
fn every_code_of_an_error_is_documented() {
    let text = read("docs/errors.md");
    let documented: Vec<&str> = text.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once("` |")?.0)).collect();
    let codes: Vec<&str> = mmconvert::Error::codes().collect();
    for code in &codes {
        let times = documented.iter().filter(|documented| *documented == code).count();
        assert_eq!(times, 1, "docs/errors.md names {code} {times} times");
    }
    for code in documented {
        assert!(codes.contains(&code), "docs/errors.md names {code}, which does not exist");
    }
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let documents = [
        "README.md",
        "docs/cli.md",
        "docs/python.md",
        "docs/sources.md",
        "docs/errors.md",
        "docs/formats.md",
        "docs/design.md",
        "docs/benchmarks.md",
        "docs/contributing.md",
    ];
    for document in documents {
        for link in read(document).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if path.starts_with("http") {
                continue;
            }
            let target = if path.is_empty() { project().join(document) } else { project().join(document).parent().unwrap().join(path) };
            assert!(target.exists(), "{document}: {link} leads nowhere");
            let has_anchor = || fs::read_to_string(&target).unwrap().lines().any(|line| line.starts_with('#') && anchor_of(line) == anchor);
            assert!(anchor.is_empty() || has_anchor(), "{document}: {link} has no such heading");
        }
    }
}

/// Paths are relative to `src/` or to the project.
#[test]
fn files_that_the_documents_name_exist() {
    for document in ["docs/design.md", "docs/contributing.md", "docs/formats.md"] {
        let mut named = 0;
        for word in read(document).split('`').skip(1).step_by(2) {
            let is_file = Path::new(word).extension().is_some_and(|extension| extension == "rs" || extension == "py");
            if !is_file || !word.contains('/') || word.contains("NEW") || word.starts_with("numpy/") {
                continue;
            }
            named += 1;
            let exists = project().join(word).exists() || project().join("src").join(word).exists();
            assert!(exists, "{document} names {word}, which does not exist");
        }
        assert!(named > 0, "{document} names no file");
    }
}

/// What links call a heading.
fn anchor_of(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars().filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn what_is_printed_is_compared_but_for_times_and_gaps() {
    let is_alike = |expected: &str, actual: &str| is_alike(&expected.lines().collect::<Vec<_>>(), &actual.lines().collect::<Vec<_>>());
    for (expected, actual, wanted) in [
        ("a -> b: 4 B in 0.01 s (clone), x", "a -> b: 4 B in 12.34 s (portable), x", true),
        ("a -> b: 4 B in 0.01 s", "a -> b: 5 B in 0.01 s", false),
        ("a\n…\nd", "a\nb\nc\nd", true),
        ("a\n…", "a", true),
        ("a", "a\nb", false),
        ("at most … of memory", "at most 30 MiB of memory", true),
        ("at most … of memory", "at most 30 MiB of disk", false),
    ] {
        assert_eq!(is_alike(expected, actual), wanted, "{expected:?} {actual:?}");
    }
}
