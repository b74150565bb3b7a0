//! Java's hash of a string, which clients and brokers agree on for tags.

/// `String.hashCode()`: over UTF-16 units.
pub(crate) fn java_hash(text: &str) -> i32 {
    text.encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}
