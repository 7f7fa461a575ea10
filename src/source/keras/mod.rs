//! Keras models: a `.keras` archive whose weights are an HDF5 file, which is read inside the archive.
//!
//! Source: `keras/src/saving/saving_lib.py` of Keras 3.

pub(crate) mod shards;

use super::container::Container;
use super::driver::Driver;
use super::hdf5;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::reader::enclosing::Enclosing;
use crate::storage::archive::{self, Member, Packing};
use crate::storage::probe::Probe;
use crate::types::name::Name;

/// The archive member with the weights.
const WEIGHTS: &[u8] = b"model.weights.h5";
/// Its name if they are an `.npz`.
const OTHER_WEIGHTS: &[u8] = b"model.weights.npz";

/// Members beside the weights: the model's architecture, and the version that wrote it.
const DESCRIPTIONS: [&[u8]; 2] = [b"config.json", b"metadata.json"];

/// A Keras model.
pub(crate) struct Keras;

impl Driver for Keras {
    fn name(&self) -> &'static str {
        "keras"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        if !probe.starts_with(archive::MAGICS[0])? {
            return Ok(None);
        }
        let is_named = probe.path().extension().is_some_and(|extension| extension == self.name());
        let has_weights = || -> Result<bool> {
            let members = archive::members(&probe.open()?)?;
            Ok(members.iter().any(|member| member.name == WEIGHTS || member.name == OTHER_WEIGHTS))
        };
        Ok((is_named || has_weights()?).then(|| probe.clone()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, place: &Probe, _: &Options) -> Result<Box<dyn Container>> {
        let path = place.path();
        let file = place.open()?;
        let members = archive::members(&file)?;
        let unsupported = |detail: String| Err(Error::Unsupported { what: format!("the weights of {}", path.display()), detail });
        let Some(weights) = members.iter().find(|member| member.name == WEIGHTS) else {
            if members.iter().any(|member| member.name == OTHER_WEIGHTS) {
                return unsupported(format!("they are in {}, which is an .npz: unpack it first", Name::new(OTHER_WEIGHTS)));
            }
            let names: Vec<String> = members.iter().take(8).map(|member| Name::new(&member.name[..]).to_string()).collect();
            let detail = format!("there is no member {}, only {}", Name::new(WEIGHTS), names.join(", "));
            return Err(Error::malformed(path, "Keras archive", detail));
        };
        match &weights.packing {
            Ok(Packing::Stored) => {
                let range = weights.offset..weights.offset + weights.packed;
                let what = format!("member {}", Name::new(WEIGHTS));
                let enclosing = Enclosing::new(&file, range.clone(), weights.checksum, what);
                let is_other = |member: &&Member| {
                    let name = &member.name[..];
                    name != WEIGHTS && !name.ends_with(b"/") && !DESCRIPTIONS.contains(&name)
                };
                let others = members.iter().filter(is_other).map(|member| {
                    let name = Name::new(&member.name[..]);
                    format!("the member {name} is not read: only {} holds weights", Name::new(WEIGHTS))
                });
                Ok(Box::new(hdf5::open_range(self.name(), &file, range, Some(&enclosing))?.with_warnings(others.collect())))
            }
            Ok(Packing::Deflated) => {
                unsupported(format!("the member {} is deflated, which Keras never does: unpack it first", Name::new(WEIGHTS)))
            }
            Err(why) => unsupported(why.clone()),
        }
    }
}
