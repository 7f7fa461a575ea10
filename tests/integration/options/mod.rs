//! Choices: each has an effect or is refused.

mod choices;
