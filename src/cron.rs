//! When a cron expression fires in a time zone, with `croner` for the expression and `jiff` for the
//! zone.
//!
//! Lives here: nothing else. May import rows of `store`.

use std::cmp::Ordering;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ZonedDateTime};

use crate::store::ScheduleRow;

/// Why there is no clock.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClockError {
    #[error("{0}")]
    Cron(String),
    #[error("'{0}' is no time zone of the IANA database")]
    Zone(String),
}

/// Fires that are counted one by one; more are told as so many.
const MOST_COUNTED: usize = 1000;

/// A cron expression of five fields in a time zone.
///
/// A time that the zone skips in spring is taken at the next moment that there is; one that it has twice
/// in autumn is taken once. Expressions that fire by an interval (`*/5`, `*`) follow the day as it
/// passes.
#[derive(Debug)]
pub struct Clock {
    cron: Cron,
    zone: TimeZone,
}

impl Clock {
    /// Of an expression and an IANA name.
    pub fn new(cron: &str, zone: &str) -> Result<Self, ClockError> {
        let why = |why: String| ClockError::Cron(why);
        let fields = cron.split_whitespace().count();
        if !cron.trim_start().starts_with('@') && fields != 5 {
            return Err(why(format!(
                "a schedule has five fields (minute, hour, day, month, weekday), not {fields}"
            )));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(cron).map_err(|error| why(error.to_string()))?;
        // Names like `EST5EDT,M3.2.0` are zones for POSIX, and a path is none.
        let zone = match zone.eq_ignore_ascii_case("utc") {
            true => TimeZone::UTC,
            false => TimeZone::get(zone).map_err(|_| ClockError::Zone(zone.to_owned()))?,
        };
        let clock = Self { cron, zone };
        match clock.next(Timestamp::now().as_microsecond()) {
            Some(_) => Ok(clock),
            None => Err(why("there is no time at which it fires".to_owned())),
        }
    }

    /// The first fire after a time; both in microseconds since the epoch.
    pub fn next(&self, after: i64) -> Option<i64> {
        let from = self.local(after)?;
        let found = self.cron.find_next_occurrence(&from, false).ok()?;
        Some(found.0.timestamp().as_microsecond())
    }

    /// When a schedule fires next after a time, by this clock and with its jitter.
    pub fn next_of(&self, schedule: &ScheduleRow, after: i64) -> Option<(i64, i64)> {
        let next = self.next(after)?;
        Some((next, next + jitter(schedule, next)))
    }

    /// Sets when a schedule fires next, from `now` on; one that is not enabled does not.
    pub fn set_next(&self, schedule: &mut ScheduleRow, now: i64) {
        let next = match schedule.enabled {
            true => self.next_of(schedule, now),
            false => None,
        };
        schedule.next_fire_at = next.map(|(at, _)| at);
        schedule.due_at = next.map(|(_, due)| due);
    }

    /// The fires from `first`, itself one, until `now`: the last, and how many there were before it, of
    /// which no more than a thousand are counted.
    pub fn last_until(&self, first: i64, now: i64) -> (i64, i64) {
        let last = self.local(now).and_then(|now| {
            let found = self.cron.find_previous_occurrence(&now, true).ok()?;
            Some(found.0.timestamp().as_microsecond())
        });
        let last = last.unwrap_or(first).max(first);
        let mut missed = 0;
        let mut at = first;
        while at < last && missed < MOST_COUNTED {
            missed += 1;
            match self.next(at) {
                Some(next) => at = next,
                None => break,
            }
        }
        (last, missed as i64)
    }

    fn local(&self, micros: i64) -> Option<Local> {
        let at = Timestamp::from_microsecond(micros).ok()?;
        Some(Local(at.to_zoned_datetime(self.zone.clone())))
    }
}

/// How much later than its clock says a schedule fires, at most its jitter: the same for the same fire
/// on every node.
fn jitter(schedule: &ScheduleRow, at: i64) -> i64 {
    let most = schedule.jitter_seconds.max(0) as u64 * 1_000_000;
    if most == 0 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (&schedule.id, at).hash(&mut hasher);
    (hasher.finish() % most) as i64
}

/// A time of a zone, as `croner` asks for it.
struct Local(ZonedDateTime);

impl Local {
    fn at(&self, civil: CivilDateTime) -> Result<DateTime, CronError> {
        let small = |number: u32| i8::try_from(number).map_err(|_| CronError::InvalidDate);
        DateTime::new(
            i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?,
            small(civil.month())?,
            small(civil.day())?,
            small(civil.hour())?,
            small(civil.minute())?,
            small(civil.second())?,
            0,
        )
        .map_err(|_| CronError::InvalidDate)
    }
}

impl CronDateTime for Local {
    fn to_civil(&self) -> CivilDateTime {
        let at = self.0.datetime();
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(
                i32::from(at.year()),
                at.month().unsigned_abs().into(),
                at.day().unsigned_abs().into(),
            ),
            CivilTime::from_parts_unchecked(
                at.hour().unsigned_abs().into(),
                at.minute().unsigned_abs().into(),
                at.second().unsigned_abs().into(),
            ),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        let days = self.0.weekday().to_sunday_zero_offset();
        Weekday::from_days_from_sunday(days.unsigned_abs().into())
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let bad = |_| CronError::InvalidTime;
        let ambiguous = self
            .0
            .time_zone()
            .to_ambiguous_zoned_datetime(self.at(civil)?);
        Ok(match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => {
                Resolution::Single(Self(ambiguous.unambiguous().map_err(bad)?))
            }
            AmbiguousOffset::Fold { .. } => Resolution::Ambiguous(
                Self(ambiguous.clone().earlier().map_err(bad)?),
                Self(ambiguous.later().map_err(bad)?),
            ),
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        let moved = self.0.checked_add(SignedDuration::from_secs(seconds));
        moved.ok().map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.timestamp().cmp(&other.0.timestamp())
    }
}

impl Clone for Local {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_microsecond()
    }

    fn said(micros: Option<i64>) -> String {
        let at = Timestamp::from_microsecond(micros.expect("fires")).expect("a time");
        at.to_string()
    }

    #[test]
    fn fires_by_the_zones_clock() {
        let clock = Clock::new("30 2 * * *", "Europe/Berlin").expect("a clock");
        // Summer time begins on 2026-03-29: 02:00 becomes 03:00. What is skipped fires at once then.
        assert_eq!(
            said(clock.next(at("2026-03-28T12:00:00Z"))),
            "2026-03-29T01:00:00Z"
        );
        assert_eq!(
            said(clock.next(at("2026-03-29T01:00:00Z"))),
            "2026-03-30T00:30:00Z"
        );
        // It ends on 2026-10-25: 02:30 is there twice.
        assert_eq!(
            said(clock.next(at("2026-10-24T12:00:00Z"))),
            "2026-10-25T00:30:00Z"
        );
        assert_eq!(
            said(clock.next(at("2026-10-25T00:30:00Z"))),
            "2026-10-26T01:30:00Z"
        );
        // In a zone whose clock moves by half an hour.
        let clock = Clock::new("15 2 * * *", "Australia/Lord_Howe").expect("a clock");
        let first = clock.next(at("2026-10-03T00:00:00Z"));
        assert_eq!(said(first), "2026-10-03T15:30:00Z");
    }

    #[test]
    fn intervals_follow_the_day() {
        let clock = Clock::new("*/30 * * * *", "Europe/Berlin").expect("a clock");
        let mut now = at("2026-10-25T00:00:00Z");
        for expected in ["00:30", "01:00", "01:30", "02:00", "02:30"] {
            now = clock.next(now).expect("fires");
            assert_eq!(said(Some(now)), format!("2026-10-25T{expected}:00Z"));
        }
    }

    #[test]
    fn every_transition_of_a_zone_fires_once_a_day() {
        for zone in [
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
            "Africa/Cairo",
        ] {
            let clock = Clock::new("30 2 * * *", zone).expect("a clock");
            let (mut now, mut days) = (at("2026-01-01T12:00:00Z"), 0);
            let end = at("2027-01-01T12:00:00Z");
            while let Some(next) = clock.next(now).filter(|next| *next < end) {
                let gap = (next - now) / 60_000_000;
                assert!(
                    days == 0 || (22 * 60..=26 * 60).contains(&gap),
                    "{zone} {gap}"
                );
                now = next;
                days += 1;
            }
            assert_eq!(days, 365, "{zone}");
        }
    }

    #[test]
    fn what_was_missed_is_counted() {
        let clock = Clock::new("0 * * * *", "UTC").expect("a clock");
        let first = at("2026-11-01T00:00:00Z");
        assert_eq!(
            clock.last_until(first, at("2026-11-01T05:10:00Z")),
            (at("2026-11-01T05:00:00Z"), 5)
        );
        assert_eq!(
            clock.last_until(first, at("2026-11-01T00:00:01Z")),
            (first, 0)
        );
        let clock = Clock::new("* * * * *", "UTC").expect("a clock");
        assert_eq!(clock.last_until(first, at("2027-11-01T00:00:00Z")).1, 1000);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for cron in [
            "",
            "* * * *",
            "0 0 * * * *",
            "61 * * * *",
            "0 0 31 2 *",
            "x y z a b",
            "@reboot",
            "0 0 0 0 0",
            "*/0 * * * *",
        ] {
            assert!(
                matches!(Clock::new(cron, "UTC"), Err(ClockError::Cron(_))),
                "{cron}"
            );
        }
        for cron in [
            "0 9 * * MON-FRI",
            "*/5 * * * *",
            "0 0 1 JAN *",
            "@daily",
            "0 0 L * *",
        ] {
            assert!(Clock::new(cron, "UTC").is_ok(), "{cron}");
        }
        for zone in ["Mars/Olympus", "", "../../etc/passwd", "UTC+2"] {
            let refused = Clock::new("0 0 * * *", zone).expect_err("refused");
            assert_eq!(refused, ClockError::Zone(zone.to_owned()));
        }
    }
}
