//! Options that track whether they were used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether an option was used. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub(crate) struct Used(Arc<AtomicBool>);

impl Used {
    pub(crate) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An option that may be set.
#[derive(Debug, Clone)]
pub(crate) struct Choice<T> {
    value: Option<T>,
    used: Used,
}

impl<T> Default for Choice<T> {
    fn default() -> Self {
        Self { value: None, used: Used::default() }
    }
}

impl<T: Copy> Choice<T> {
    pub(crate) fn set(&mut self, value: T) {
        *self = Self { value: Some(value), used: Used::default() };
    }

    /// The value; marks the option as used.
    pub(crate) fn get(&self) -> Option<T> {
        self.used.note();
        self.value
    }

    /// The value, without marking the option as used.
    pub(crate) fn peek(&self) -> Option<T> {
        self.value
    }

    pub(crate) fn note(&self) {
        self.used.note();
    }

    /// Replaces this option by the other one if that is set.
    pub(crate) fn override_with(&mut self, other: &Self) {
        if other.value.is_some() {
            self.clone_from(other);
        }
    }

    /// Reports the option if it is set but unused, as the program spells it.
    pub(crate) fn unused(&self, flag: &str, needs: &'static str) -> Option<Unused> {
        self.value.filter(|_| !self.used.is_noted()).map(|_| Unused::new(flag, None, needs))
    }
}

impl Choice<bool> {
    /// Sets the option if `value` differs from the default, and unsets it otherwise.
    pub(crate) fn set_if(&mut self, value: bool) {
        *self = Self { value: value.then_some(true), used: Used::default() };
    }

    pub(crate) fn is_set(&self) -> bool {
        self.get().is_some()
    }
}

/// An option that was set but not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unused {
    /// The name as the program spells it.
    pub(crate) flag: String,
    /// The things it applies to.
    pub(crate) needs: &'static str,
}

impl Unused {
    pub(crate) fn new(flag: &str, feature: Option<&str>, needs: &'static str) -> Self {
        let flag = feature.map_or_else(|| flag.to_owned(), |feature| format!("{flag} {feature}=…"));
        Self { flag, needs }
    }
}
