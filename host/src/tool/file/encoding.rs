//! How text is written in a file, with the names that Python has for it.

use encoding_rs::{Encoding as Web, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// How text is written in a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Encoding {
    Utf8,
    /// With a byte order mark.
    Utf8Sig,
    /// With a byte order mark, which says how to read it; little endian where there is none.
    Utf16,
    Utf16Le,
    Utf16Be,
    Ascii,
    /// The bytes are the code points, which on the web they are not.
    Latin1,
    /// One that means the same on the web.
    Web(&'static Web),
}

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const LITTLE_MARK: &[u8] = b"\xff\xfe";
const BIG_MARK: &[u8] = b"\xfe\xff";

impl Encoding {
    /// Finds one by its name, whatever its case, its dashes and its underscores.
    pub(super) fn named(name: &str) -> Option<Self> {
        let plain = name.to_lowercase().replace(['-', '_', ' '], "");
        Some(match plain.as_str() {
            "utf8" | "u8" | "utf" => Self::Utf8,
            "utf8sig" => Self::Utf8Sig,
            "utf16" | "u16" => Self::Utf16,
            "utf16le" => Self::Utf16Le,
            "utf16be" => Self::Utf16Be,
            "ascii" | "usascii" | "646" => Self::Ascii,
            "latin1" | "latin" | "l1" | "iso88591" | "8859" | "cp819" => Self::Latin1,
            _ => {
                let spellings = [name, &plain, &name.replace('_', "-")];
                let mut found = spellings.iter().filter_map(|spelling| {
                    let found = Web::for_label(spelling.as_bytes())?;
                    // Some stand for another than they are called on the web, or are only read.
                    let is_meant = found != WINDOWS_1252 || plain.contains("1252");
                    (is_meant && !found.output_encoding().name().starts_with("UTF"))
                        .then_some(found)
                });
                Self::Web(found.next()?)
            }
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Utf8Sig => "utf-8-sig",
            Self::Utf16 => "utf-16",
            Self::Utf16Le => "utf-16-le",
            Self::Utf16Be => "utf-16-be",
            Self::Ascii => "ascii",
            Self::Latin1 => "latin-1",
            Self::Web(encoding) => encoding.name(),
        }
    }

    /// Returns the bytes of a text; `None` where it has characters that the encoding has not.
    pub(super) fn encode(self, text: &str) -> Option<Vec<u8>> {
        let little = || text.encode_utf16().flat_map(u16::to_le_bytes);
        match self {
            Self::Utf8 => Some(text.into()),
            Self::Utf8Sig => Some([UTF8_MARK, text.as_bytes()].concat()),
            Self::Utf16 => Some(LITTLE_MARK.iter().copied().chain(little()).collect()),
            Self::Utf16Le => Some(little().collect()),
            Self::Utf16Be => Some(text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
            Self::Ascii => text.is_ascii().then(|| text.into()),
            Self::Latin1 => text.chars().map(|c| u8::try_from(c).ok()).collect(),
            Self::Web(encoding) => {
                let (bytes, _, is_lossy) = encoding.encode(text);
                (!is_lossy).then(|| bytes.into_owned())
            }
        }
    }

    /// Returns the text of bytes; what is none is replaced.
    pub(super) fn decode(self, bytes: &[u8]) -> String {
        let web = |encoding: &'static Web, bytes| {
            let (text, _) = encoding.decode_without_bom_handling(bytes);
            text.into_owned()
        };
        match self {
            Self::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Self::Utf8Sig => {
                let text = bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes);
                String::from_utf8_lossy(text).into_owned()
            }
            Self::Utf16 => match bytes.strip_prefix(BIG_MARK) {
                Some(text) => web(UTF_16BE, text),
                None => web(UTF_16LE, bytes.strip_prefix(LITTLE_MARK).unwrap_or(bytes)),
            },
            Self::Utf16Le => web(UTF_16LE, bytes),
            Self::Utf16Be => web(UTF_16BE, bytes),
            Self::Ascii => {
                let shown = |byte: &u8| match byte.is_ascii() {
                    true => char::from(*byte),
                    false => char::REPLACEMENT_CHARACTER,
                };
                bytes.iter().map(shown).collect()
            }
            Self::Latin1 => bytes.iter().copied().map(char::from).collect(),
            Self::Web(encoding) => web(encoding, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_pythons() {
        // As `text.encode(name)` has it there.
        for (name, text, bytes) in [
            ("utf-8", "é", &b"\xc3\xa9"[..]),
            ("UTF_8", "\u{feff}a", b"\xef\xbb\xbfa"),
            ("utf-8-sig", "é", b"\xef\xbb\xbf\xc3\xa9"),
            ("utf-16", "é😀", b"\xff\xfe\xe9\x00\x3d\xd8\x00\xde"),
            ("utf_16_le", "é", b"\xe9\x00"),
            ("UTF-16LE", "\u{feff}é", b"\xff\xfe\xe9\x00"),
            ("utf-16-be", "é", b"\x00\xe9"),
            ("ascii", "a", b"a"),
            ("latin-1", "é\u{80}\u{ff}", b"\xe9\x80\xff"),
            ("ISO-8859-1", "\u{9f}", b"\x9f"),
            ("cp1252", "€", b"\x80"),
            ("windows-1252", "€", b"\x80"),
            ("iso8859-15", "€", b"\xa4"),
            ("koi8_r", "д", b"\xc4"),
            ("gbk", "中", b"\xd6\xd0"),
            ("shift_jis", "日", b"\x93\xfa"),
            ("euc_jp", "日", b"\xc6\xfc"),
            ("big5", "中", b"\xa4\xa4"),
        ] {
            let encoding = Encoding::named(name).unwrap();
            assert_eq!(encoding.encode(text).as_deref(), Some(bytes), "{name}");
            assert_eq!(encoding.decode(bytes), text, "{name}");
        }
    }

    #[test]
    fn a_mark_says_how_utf_16_is_read() {
        for (bytes, text) in [
            (&b"\xfe\xff\x00\xe9"[..], "é"),
            (b"\xff\xfe\xe9\x00", "é"),
            (b"\xe9\x00", "é"),
            (b"", ""),
        ] {
            assert_eq!(Encoding::Utf16.decode(bytes), text, "{bytes:?}");
        }
        assert_eq!(Encoding::Utf8Sig.decode(b"a"), "a");
    }

    #[test]
    fn what_an_encoding_has_not_is_refused_and_what_is_no_text_replaced() {
        for (name, text) in [("ascii", "é"), ("latin-1", "€"), ("gbk", "😀")] {
            assert_eq!(Encoding::named(name).unwrap().encode(text), None, "{name}");
        }
        assert_eq!(Encoding::Ascii.decode(b"a\xe9"), "a\u{fffd}");
        assert_eq!(Encoding::Utf8.decode(b"a\xe9"), "a\u{fffd}");
    }

    #[test]
    fn names_that_mean_something_else_on_the_web_are_unknown() {
        for name in [
            "klingon",
            "",
            "hz-gb-2312",
            "unicode",
            "ucs-2",
            "iso-ir-100",
        ] {
            assert_eq!(Encoding::named(name), None, "{name}");
        }
    }
}
