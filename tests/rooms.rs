//! The rooms of `src/`: which may import which, and that imports form no cycle. It reads the sources and builds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every room, lowest first. A file may import from its own room and from those above it in this list, never from those below.
const ROOMS: &[&str] = &[
    "error",      // what can go wrong
    "types",      // what a tensor is: dtype, shape, byte order
    "os",         // calls that not every Unix has, and threads
    "cast",       // elements to elements
    "image",      // compressed pixels to pixels
    "format",     // bytes to structs, nothing is opened
    "storage",    // where bytes lie
    "options",    // what a caller chooses
    "plan",       // slices, tiles, boxes: arithmetic only
    "reader",     // elements of one tensor
    "output",     // the file that is being written
    "records",    // records to columns
    "source",     // formats and named tensors
    "view",       // the finished array, mapped
    "convert",    // one tensor, many, one file of many, compare
    "tensorflow", // a running TensorFlow
    "writer",     // arrays of rows that a program makes
    "lib",        // the public names
];
/// Most lines of a file in `src/`.
const MOST_LINES: usize = 800;
/// No room has more than this fraction (one in four) of all lines.
const LEAST_SHARE: usize = 4;

type Module = Vec<String>;

/// A source file: its module, its text without comments and tests, and how many lines it has.
struct File {
    path: PathBuf,
    module: Module,
    text: String,
    lines: usize,
}

impl File {
    fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // The program is a separate package, so it can use public names only.
            if path != src().join("bin") {
                walk(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn module_of(path: &Path) -> Module {
    let relative = path.strip_prefix(src()).unwrap().with_extension("");
    let mut module: Module = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// The text without comments and up to its tests. The content of strings stays.
fn code_of(text: &str) -> String {
    let code: Vec<&str> = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect();
    let code = code.join("\n");
    let end = ["#[cfg(test)]\nmod tests {", "#[cfg(all(test"].iter().filter_map(|mark| code.find(mark)).min();
    code[..end.unwrap_or(code.len())].to_owned()
}

fn files() -> Vec<File> {
    let mut paths = Vec::new();
    walk(&src(), &mut paths);
    paths.sort();
    let texts = paths.iter().map(|path| fs::read_to_string(path).unwrap());
    let files: Vec<File> = paths
        .iter()
        .zip(texts)
        .map(|(path, text)| File { path: path.clone(), module: module_of(path), text: code_of(&text), lines: text.lines().count() })
        .collect();
    // Files that consist of tests.
    let is_test = |file: &File| file.module.last().is_some_and(|last| last == "tests");
    files.into_iter().filter(|file| !is_test(file)).collect()
}

/// `a::{b, c::{d}}` as `a::b` and `a::c::d`.
fn expand(path: &str) -> Vec<String> {
    let path = path.trim();
    let Some(open) = path.find('{') else {
        return vec![path.split(" as ").next().unwrap().trim().to_owned()];
    };
    let inner = &path[open + 1..path.rfind('}').unwrap()];
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(expand).map(|part| format!("{}{part}", &path[..open])).collect()
}

/// All paths in a text: those in `use` lines, and those in code that start at the crate, at this module, at a parent, or at a
/// child.
fn paths_in(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = text;
    let mut code = String::new();
    while let Some(at) = rest.find("use ") {
        // Not the word in a string or a comment behind code.
        let before = rest[..at].rsplit('\n').next().unwrap().trim();
        let starts_line = before.is_empty() || before == "pub" || (before.starts_with("pub(") && before.ends_with(')'));
        let end = rest[at..].find(';').map_or(rest.len(), |end| at + end);
        if starts_line && !rest[at..end].contains('=') {
            code.push_str(&rest[..at]);
            paths.extend(expand(&rest[at + 4..end]));
            rest = &rest[end..];
        } else {
            code.push_str(&rest[..at + 4]);
            rest = &rest[at + 4..];
        }
    }
    code.push_str(rest);
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    paths.extend(code.split(|c| !is_path(c)).filter(|word| word.contains("::") && !word.starts_with(':')).map(str::to_owned));
    paths
}

/// The file that a path in `file` leads to.
fn target(file: &File, path: &str, modules: &BTreeMap<Module, usize>) -> Option<usize> {
    let mut parts = path.split("::").map(str::trim).filter(|part| !part.is_empty()).peekable();
    let mut module = match *parts.peek()? {
        "crate" => {
            parts.next();
            Module::new()
        }
        "self" | "super" => {
            let mut module = file.module.clone();
            while let Some(&part @ ("self" | "super")) = parts.peek() {
                if part == "super" {
                    module.pop();
                }
                parts.next();
            }
            module
        }
        first => {
            let child: Module = file.module.iter().cloned().chain([first.to_owned()]).collect();
            modules.contains_key(&child).then(|| file.module.clone())?
        }
    };
    for part in parts {
        module.push(part.to_owned());
        if !modules.contains_key(&module) {
            module.pop();
            break;
        }
    }
    modules.get(&module).copied()
}

/// For each file, by index, the other files it imports from.
fn imports(files: &[File]) -> Vec<BTreeSet<usize>> {
    let modules: BTreeMap<Module, usize> = files.iter().enumerate().map(|(at, file)| (file.module.clone(), at)).collect();
    let of = |(at, file): (usize, &File)| {
        paths_in(&file.text).iter().filter_map(|path| target(file, path, &modules)).filter(|&other| other != at).collect()
    };
    files.iter().enumerate().map(of).collect()
}

fn name(file: &File) -> String {
    file.path.strip_prefix(src()).unwrap().display().to_string()
}

#[test]
fn imports_go_to_rooms_above_only() {
    let files = files();
    let place = |room: &str| ROOMS.iter().position(|known| *known == room).unwrap_or_else(|| panic!("src/{room} is not in ROOMS"));
    let mut wrong = Vec::new();
    for (file, imports) in files.iter().zip(imports(&files)) {
        for other in imports.into_iter().map(|other| &files[other]) {
            if place(other.room()) > place(file.room()) {
                wrong.push(format!("{} imports {}", name(file), name(other)));
            }
        }
    }
    assert!(wrong.is_empty(), "against the order of the rooms:\n{}", wrong.join("\n"));
    // Checks the parsing of imports: these are known to exist.
    let has = |from: &str, to: &str| {
        let at = files.iter().position(|file| name(file) == from).unwrap();
        imports(&files)[at].iter().any(|&other| name(&files[other]) == to)
    };
    assert!(has("convert/job/mod.rs", "plan/mod.rs") && has("lib.rs", "error.rs") && !has("error.rs", "lib.rs"));
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let files = files();
    let mut imports = imports(&files);
    // Files that import no remaining file are in no cycle.
    loop {
        let done: Vec<usize> = (0..files.len()).filter(|&at| imports[at].is_empty()).collect();
        let before: usize = imports.iter().map(BTreeSet::len).sum();
        for others in &mut imports {
            others.retain(|other| !done.contains(other));
        }
        if imports.iter().map(BTreeSet::len).sum::<usize>() == before {
            break;
        }
    }
    let left: Vec<String> = (0..files.len())
        .filter(|&at| !imports[at].is_empty())
        .map(|at| {
            let others: Vec<String> = imports[at].iter().map(|&other| name(&files[other])).collect();
            format!("{} imports {}", name(&files[at]), others.join(", "))
        })
        .collect();
    assert!(left.is_empty(), "in a circle, or leading to one:\n{}", left.join("\n"));
}

#[test]
fn rooms_and_files_stay_small() {
    let files = files();
    let all: usize = files.iter().map(|file| file.lines).sum();
    let mut rooms: BTreeMap<&str, usize> = BTreeMap::new();
    for file in &files {
        assert!(file.lines <= MOST_LINES, "{} has {} lines: it holds two ideas", name(file), file.lines);
        *rooms.entry(file.room()).or_default() += file.lines;
    }
    for (room, lines) in rooms {
        assert!(lines * LEAST_SHARE < all, "src/{room} has {lines} of {all} lines");
    }
    let known: BTreeSet<&str> = ROOMS.iter().copied().collect();
    let found: BTreeSet<&str> = files.iter().map(File::room).collect();
    assert_eq!(known, found, "each room of the list is there");
    let loose: BTreeSet<String> = files.iter().filter(|file| file.path.parent() == Some(&src())).map(name).collect();
    assert_eq!(loose, BTreeSet::from(["error.rs", "lib.rs", "view.rs"].map(str::to_owned)));
}
