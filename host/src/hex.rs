//! Hashes as text: SHA-256 in hexadecimal.

use std::fmt::Write;

/// Writes bytes in hexadecimal, in lower case.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Returns whether a text is a SHA-256 in hexadecimal, in either case.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_32_bytes_is_a_hash() {
        let hash = text(&[0x0f; 32]);
        assert!(hash.starts_with("0f0f") && is_sha256(&hash));
        assert!(is_sha256(&hash.to_uppercase()));
        for wrong in ["", "0f", &hash.replace('f', "g"), &format!("{hash}0")] {
            assert!(!is_sha256(wrong), "{wrong}");
        }
    }
}
