//! Names that are nearly the same, to tell what a misspelt one was meant to be.

/// Picks the name that `given` was most likely meant to be; `None` if none is near.
///
/// Names are compared without case. A third of the characters, and one at least, may be missing, added, changed or
/// swapped, as long as something is left of the name.
///
/// # Examples
///
/// ```
/// use tailwater_cli::similar::most_similar;
///
/// let topics = ["mails", "orders"].map(str::to_owned);
/// assert_eq!(most_similar("ordres", topics).as_deref(), Some("orders"));
/// ```
#[must_use]
pub fn most_similar(given: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    let wanted = given.to_ascii_lowercase();
    let length = wanted.chars().count();
    let most_edits = (length / 3).max(1).min(length.saturating_sub(1));
    let near = names.into_iter().filter_map(|name| {
        let edits = strsim::osa_distance(&wanted, &name.to_ascii_lowercase());
        (edits <= most_edits).then_some((edits, name))
    });
    near.min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_meant_if_it_is_near() {
        let meant = |given: &str| most_similar(given, ["order", "orders", "mails", "q"].map(str::to_owned));
        for given in ["ordres", "rders", "Orderss", "oders"] {
            assert_eq!(meant(given).as_deref(), Some("orders"), "{given}");
        }
        assert_eq!(meant("ordr").as_deref(), Some("order"));
        assert_eq!(meant("MAIL").as_deref(), Some("mails"));
        for given in ["", "x", "bills", "order-lines", "m"] {
            assert_eq!(meant(given), None, "{given}");
        }
    }
}
