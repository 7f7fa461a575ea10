//! Choices that know whether anything made use of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether anything made use of a choice. Clones share it.
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

/// A choice that may have been made.
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

    /// The choice, which is made use of.
    pub(crate) fn get(&self) -> Option<T> {
        self.used.note();
        self.value
    }

    /// The choice, where that is asked without making anything of it.
    pub(crate) fn peek(&self) -> Option<T> {
        self.value
    }

    pub(crate) fn note(&self) {
        self.used.note();
    }

    /// Takes over the other choice, if it was made.
    pub(crate) fn override_with(&mut self, other: &Self) {
        if other.value.is_some() {
            self.clone_from(other);
        }
    }

    /// The choice if nothing made use of it, as the program spells it.
    pub(crate) fn unused(&self, flag: &str, needs: &'static str) -> Option<Unused> {
        self.value.filter(|_| !self.used.is_noted()).map(|_| Unused::new(flag, None, needs))
    }
}

impl Choice<bool> {
    /// Makes the choice, where `value` is not what would be without it.
    pub(crate) fn set_if(&mut self, value: bool) {
        *self = Self { value: value.then_some(true), used: Used::default() };
    }

    pub(crate) fn is_set(&self) -> bool {
        self.get().is_some()
    }
}

/// A choice that nothing has made use of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unused {
    /// As the program spells it.
    pub(crate) flag: String,
    /// What it is for.
    pub(crate) needs: &'static str,
}

impl Unused {
    pub(crate) fn new(flag: &str, feature: Option<&str>, needs: &'static str) -> Self {
        let flag = feature.map_or_else(|| flag.to_owned(), |feature| format!("{flag} {feature}=…"));
        Self { flag, needs }
    }
}
