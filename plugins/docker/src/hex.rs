//! Bytes as hexadecimal digits, which pass everywhere.

use boxyard_plugin_api::prelude::*;

/// Writes bytes as digits, two each.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the digits of so many bytes that nobody can guess.
///
/// # Errors
///
/// The system has no randomness to give.
pub(crate) fn random<const BYTES: usize>() -> Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(Error::internal)?;
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_two_digits() {
        assert_eq!(hex(&[0, 10, 255]), "000aff");
        let one = random::<12>().unwrap();
        assert_eq!(one.len(), 24);
        assert_ne!(one, random::<12>().unwrap());
    }
}
