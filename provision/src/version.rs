//! Reads the version that a tool prints about itself: `uv 0.13.9 (x86_64-unknown-linux-gnu)`, `nats-server: v2.15.1`.

/// Major, minor and patch; compared in this order.
pub(crate) type Version = (u32, u32, u32);

/// The first version in a text.
pub(crate) fn find(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.strip_prefix('v').unwrap_or(word).split(['.', '-', '+']);
        let mut number = || parts.next()?.parse::<u32>().ok();
        Some((number()?, number()?, number()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_print() {
        assert_eq!(find("uv 0.13.9 (x86_64-unknown-linux-gnu)"), Some((0, 13, 9)));
        assert_eq!(find("nats-server: v2.15.1"), Some((2, 15, 1)));
        assert_eq!(find("nats-server: v2.12.0-RC.1"), Some((2, 12, 0)));
        assert_eq!(find("nats-server: unknown"), None);
    }
}
