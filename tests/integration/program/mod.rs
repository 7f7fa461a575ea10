//! The program: its commands, messages and signals.

mod cli;
mod interrupts;
