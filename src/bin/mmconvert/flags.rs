//! Translates the library's names in messages, which are in backquotes, to what the program calls them.

/// Option names in messages of the library, and the matching flags.
const FLAGS: &[(&str, &str)] = &[
    ("against", "--against"),
    ("batch", "--batch"),
    ("byte_order", "--byte-order"),
    ("cast", "--dtype"),
    ("channels", "--channels"),
    ("concat", "--concat"),
    ("feed", "--feed"),
    ("flatten", "--flatten"),
    ("format", "--format"),
    ("jpeg", "--jpeg"),
    ("layout", "--layout"),
    ("memory", "--memory"),
    ("method", "--method"),
    ("missing", "--missing"),
    ("offset", "--offset"),
    ("op_library", "--op-library"),
    ("output", "--output"),
    ("overwrite", "-f"),
    ("ragged", "--ragged"),
    ("raw", "--raw"),
    ("read_as", "--as"),
    ("rows", "--rows"),
    ("salvage", "--salvage"),
    ("shape", "--shape"),
    ("signature", "--signature"),
    ("stream", "--stream"),
    ("strict", "--strict"),
    ("strings", "--strings"),
    ("tag_set", "--tag-set"),
    ("tensorflow", "--tensorflow"),
    ("Source::tensors", "`mmconvert ls`"),
];

/// Replaces option names in a message by flags. Other text in backquotes is unchanged.
pub(crate) fn spelled(message: &str) -> String {
    let mut parts = message.split('`');
    let mut text = parts.next().unwrap_or_default().to_owned();
    let mut rest: Vec<&str> = parts.collect();
    rest.reverse();
    while let Some(inner) = rest.pop() {
        let flag = FLAGS.iter().find(|(name, _)| *name == inner).map(|(_, flag)| *flag);
        match (flag, rest.pop()) {
            (Some(flag), Some(behind)) => {
                text.push_str(flag);
                text.push_str(behind);
            }
            (_, behind) => {
                text.push('`');
                text.push_str(inner);
                // The next backquote may start a name.
                rest.extend(behind);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn each_name_leads_to_a_flag_of_the_program() {
        let command = crate::args::Args::command();
        let flags: Vec<String> = command
            .get_subcommands()
            .flat_map(clap::Command::get_arguments)
            .filter_map(|arg| arg.get_long().map(|long| format!("--{long}")))
            .collect();
        for (name, flag) in FLAGS.iter().filter(|(_, flag)| flag.starts_with("--")) {
            assert!(flags.iter().any(|known| known == flag), "{name}: {flag}");
        }
    }

    #[test]
    fn names_become_flags_and_nothing_else_changes() {
        for (message, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("`salvage` goes without it", "--salvage goes without it"),
            ("`read_as` string or `cast` uint8", "--as string or --dtype uint8"),
            ("`mmconvert ls` lists `rows`", "`mmconvert ls` lists --rows"),
            ("a ` alone, and `rows`", "a ` alone, and --rows"),
            ("`unknown``rows`", "`unknown`--rows"),
            ("ends in `rows", "ends in `rows"),
        ] {
            assert_eq!(spelled(message), expected);
        }
    }
}
