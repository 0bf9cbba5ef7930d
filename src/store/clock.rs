//! The clock of all rows: times are microseconds since the Unix epoch.

/// Now, in microseconds since the Unix epoch.
pub fn now_micros() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// Now, in seconds since the Unix epoch.
pub fn now_seconds() -> i64 {
    now_micros() / 1_000_000
}
