//! RFC 3339 timestamps as Kubernetes stores them: UTC, whole seconds for Time, six decimals for MicroTime.
//! Days are counted with the proleptic Gregorian calendar, so no clock or time zone database is asked.

const SECONDS_PER_DAY: i64 = 86_400;

/// An instant: seconds since the Unix epoch and nanoseconds within that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant {
    pub seconds: i64,
    pub nanos: u32,
}

impl Instant {
    /// Parse RFC 3339 with any offset; None when the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let shape: [(usize, u8); 4] = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
        if shape.iter().any(|(at, want)| bytes.get(*at) != Some(want))
            || bytes.get(10) != Some(&b'T')
        {
            return None;
        }
        let number = |from: usize, to: usize| bytes.get(from..to).and_then(decimal);
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month)
            || day < 1
            || day > days_in_month(year, month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let mut rest = bytes.get(19..)?;
        let mut nanos = 0;
        if let Some((b'.' | b',', fraction)) = rest.split_first() {
            let digits = fraction
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            if digits == 0 {
                return None;
            }
            let mut unit = 100_000_000;
            for byte in fraction.iter().take(digits.min(9)) {
                nanos += u32::from(byte - b'0') * unit;
                unit /= 10;
            }
            rest = fraction.get(digits..)?;
        }
        let offset = match rest {
            [b'Z'] => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let (hours, minutes) = (decimal(&[*h1, *h2])?, decimal(&[*m1, *m2])?);
                if hours > 24 || minutes > 60 {
                    return None;
                }
                (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let days = days_from_civil(year, month, day);
        Some(Self {
            seconds: days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset,
            nanos,
        })
    }

    /// metav1.Time's form: `2026-01-02T03:04:05Z`.
    pub fn to_time(self) -> String {
        let (year, month, day, clock) = self.civil();
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            clock / 3600,
            clock / 60 % 60,
            clock % 60
        )
    }

    /// metav1.MicroTime's form: `2026-01-02T03:04:05.000006Z`.
    pub fn to_micro_time(self) -> String {
        let (year, month, day, clock) = self.civil();
        let micros = self.nanos / 1000;
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{micros:06}Z",
            clock / 3600,
            clock / 60 % 60,
            clock % 60
        )
    }

    fn civil(self) -> (i64, i64, i64, i64) {
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(SECONDS_PER_DAY));
        (year, month, day, self.seconds.rem_euclid(SECONDS_PER_DAY))
    }
}

fn decimal(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + i64::from(byte - b'0'))
    })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. Years are counted from March, so that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_fractions_are_normalised_to_utc() {
        let instant = Instant::parse("2024-03-01T01:30:00.1234567+02:00").unwrap();
        assert_eq!(instant.to_time(), "2024-02-29T23:30:00Z");
        assert_eq!(instant.to_micro_time(), "2024-02-29T23:30:00.123456Z");
        assert_eq!(
            Instant::parse("1970-01-01T00:00:00Z"),
            Some(Instant {
                seconds: 0,
                nanos: 0
            })
        );
        assert_eq!(Instant::parse("1969-12-31T23:59:59Z").unwrap().seconds, -1);
    }

    #[test]
    fn texts_that_are_no_timestamps_are_refused() {
        for text in [
            "",
            "today",
            "2024-02-30T00:00:00Z",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00.Z",
        ] {
            assert_eq!(Instant::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_survives_the_round_trip() {
        for day in (-146_097..146_097).step_by(7) {
            let (year, month, day_of_month) = civil_from_days(day);
            assert_eq!(days_from_civil(year, month, day_of_month), day);
        }
    }
}
