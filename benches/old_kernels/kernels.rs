//! What each kernel lacks, as filters of system calls.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// The kernel without filters.
pub(crate) const THIS: &str = "this";

/// A kernel: its version, and the number of the last system call that it knows. Newer calls have the same numbers on all of today's
/// architectures.
const KERNELS: [(&str, (u32, u32), i64); 4] = [
    ("6.8", (6, 8), 461),   // lsm_list_modules; it has cachestat, 451, of 6.5
    ("6.1", (6, 1), 450),   // set_mempolicy_home_node
    ("5.15", (5, 15), 448), // process_mrelease
    ("5.4", (5, 4), 435),   // clone3; openat2, 437, came with 5.6
];

/// No kernel has a system call of this number yet.
const NO_CALL: i64 = 500;

/// An argument that an older kernel does not know: since which version it is known, the calls, which of their arguments, the bits that are
/// looked at, their value, and the error.
type Argument = ((u32, u32), &'static [i64], u8, u64, u64, i32);

const ALL_BITS: u64 = 0xffff_ffff;
const ARGUMENTS: [Argument; 4] = [
    // RWF_DONTCACHE
    ((6, 14), &[libc::SYS_preadv2, libc::SYS_pwritev2], 5, 0x80, 0x80, libc::EOPNOTSUPP),
    // STATX_DIOALIGN. An older kernel would answer without it; a filter cannot change an answer, so the call fails.
    ((6, 1), &[libc::SYS_statx], 3, 0x2000, 0x2000, libc::EINVAL),
    // MADV_POPULATE_READ and MADV_POPULATE_WRITE
    ((5, 14), &[libc::SYS_madvise], 2, ALL_BITS, 22, libc::EINVAL),
    ((5, 14), &[libc::SYS_madvise], 2, ALL_BITS, 23, libc::EINVAL),
];

/// All names, the newest kernel first.
pub(crate) fn names() -> Vec<&'static str> {
    std::iter::once(THIS).chain(KERNELS.map(|(name, ..)| name)).collect()
}

/// From now on this process, and what it becomes, has only what a kernel of this name has.
pub(crate) fn become_kernel(name: &str) -> Result<(), String> {
    if name == THIS {
        return Ok(());
    }
    let known = KERNELS.iter().find(|(known, ..)| *known == name);
    let &(_, version, last_call) = known.ok_or_else(|| format!("kernel {name} is unknown; known are {}", names().join(", ")))?;
    // A filter has one error, so each error has a filter. `execve` and the filters themselves are older than all of these.
    let mut filters: BTreeMap<i32, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    filters.insert(libc::ENOSYS, (last_call + 1..NO_CALL).map(|call| (call, Vec::new())).collect());
    for (since, calls, argument, bits, value, error) in ARGUMENTS {
        if version >= since {
            continue;
        }
        for &call in calls {
            let condition = SeccompCondition::new(argument, Dword, MaskedEq(bits), value).map_err(|error| error.to_string())?;
            let rule = SeccompRule::new(vec![condition]).map_err(|error| error.to_string())?;
            filters.entry(error).or_default().entry(call).or_default().push(rule);
        }
    }
    for (error, rules) in filters {
        install(rules, error.cast_unsigned()).map_err(|error| format!("system calls cannot be filtered here: {error}"))?;
    }
    Ok(())
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, error: u32) -> Result<(), Box<dyn std::error::Error>> {
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(error), architecture)?;
    apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
}
