//! `boxyard key`: API keys of the server.

use super::{Failure, output};
use crate::{exit, http::keys};

#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyVerb {
    /// Make an API key, and the line of the configuration that accepts it.
    New {
        /// Whose key it is.
        name: String,
    },
}

pub(super) fn run(verb: &KeyVerb) -> Result<u8, Failure> {
    let KeyVerb::New { name } = verb;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(Failure::usage(format_args!(
            "`{name}` is no name for a key: expected letters, digits, `-` and `_`"
        )));
    }
    let key = keys::generate();
    output::remark("the key is shown once; clients send it as `X-API-Key`. Accept it with:");
    output::remark(format_args!(
        "[http.keys]\n{name} = \"{}\"",
        keys::hash(&key)
    ));
    output::line(key)?;
    Ok(exit::SUCCESS)
}
