//! Outputs: complete under their names or not at all, on every kind of file system.

#[cfg(target_os = "linux")]
mod direct;
mod faults;
#[cfg(target_os = "linux")]
mod lacking;
mod methods;
#[cfg(target_os = "linux")]
mod outputs;
#[cfg(target_os = "linux")]
mod syncs;
#[cfg(target_os = "linux")]
mod undo;
