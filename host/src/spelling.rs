//! Names that are misspelt.

/// Returns the known name that a misspelt one most likely means.
pub(crate) fn nearest<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a (impl AsRef<str> + 'a)>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| {
            (
                strsim::jaro_winkler(name, candidate.as_ref()),
                candidate.as_ref(),
            )
        })
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_none_where_all_are_far() {
        let known = ["docker", "local-process", "process"];
        assert_eq!(nearest("dokcer", &known), Some("docker"));
        assert_eq!(nearest("proces", &known), Some("process"));
        assert_eq!(nearest("zig", &known), None);
        assert_eq!(nearest("docker", &[""; 0]), None);
    }
}
