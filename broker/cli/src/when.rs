//! Times as people write them.

/// Milliseconds since 1970 of `2026-11-21T14:30:00.000+01:00`. Seconds and their fraction may be
/// missing, and so may the zone (UTC) or the whole time of day.
pub(crate) fn datetime(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text}: not of the form 2026-11-21T14:30:00.000, Z or +01:00 after it");
    read_datetime(text).ok_or_else(wrong)
}

/// Milliseconds of `P7DT1H30M5S`.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    read_duration(text).ok_or_else(|| format!("{text}: not of the form P7DT1H30M5S"))
}

fn read_datetime(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let zone_at = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    let [year, month, day] = numbers(date, '-')?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = match clock.matches(':').count() {
        1 => numbers(&format!("{clock}:00"), ':')?,
        _ => numbers(clock, ':')?,
    };
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let milliseconds = match fraction {
        "" => 0,
        digits => format!("{digits:0<3}").get(..3)?.parse().ok()?,
    };
    let ahead = match zone.split_at_checked(1) {
        None | Some(("Z", "")) => 0,
        Some((sign, offset)) => {
            let offset = offset.replace(':', "");
            let is_whole = matches!(offset.len(), 2 | 4);
            let offset: i64 = format!("{offset:0<4}").parse().ok().filter(|_| is_whole)?;
            let minutes = offset / 100 * 60 + offset % 100;
            if sign == "-" { -minutes } else { minutes }
        }
    };
    let minutes = (days_since_1970(year, month, day) * 24 + hour) * 60 + minute - ahead;
    Some((minutes * 60 + second) * 1000 + milliseconds)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let all: Option<Vec<i64>> = text
        .split(separator)
        .map(|part| part.parse().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit())))
        .collect();
    all?.try_into().ok()
}

/// Days of the Gregorian calendar: years begin in March, so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

fn read_duration(text: &str) -> Option<i64> {
    let (mut total, mut number, mut is_time) = (0_i64, String::new(), false);
    for letter in text.strip_prefix('P')?.chars() {
        let unit_ms = match (letter, is_time) {
            ('0'..='9' | '.', _) => {
                number.push(letter);
                continue;
            }
            ('T', false) if number.is_empty() => {
                is_time = true;
                continue;
            }
            ('D', false) => 86_400_000,
            ('H', true) => 3_600_000,
            ('M', true) => 60_000,
            ('S', true) => 1000,
            _ => return None,
        };
        let value: f64 = number.parse().ok()?;
        total = total.checked_add((value * f64::from(unit_ms)) as i64)?;
        number.clear();
    }
    (number.is_empty() && text.len() > 2).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_written() {
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("2000-03-01T00:00:00Z", Some(951_868_800_000)),
            ("2026-11-21T14:30:00.250", Some(1_795_271_400_250)),
            ("2026-11-21T15:30:00.25+01:00", Some(1_795_271_400_250)),
            ("2026-11-21T09:00-0530", Some(1_795_271_400_000)),
            ("2024-02-29 12:00", Some(1_709_208_000_000)),
            ("2026-13-01", None),
            ("2026-11-21T25:00", None),
            ("yesterday", None),
            ("2026-11-21T14:30+1:2:3", None),
        ] {
            assert_eq!(datetime(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("PT1H30M", Some(5_400_000)),
            ("P7DT0.5S", Some(604_800_500)),
            ("P", None),
            ("1H", None),
            ("PT5", None),
            ("P1H", None),
        ] {
            assert_eq!(duration(text).ok(), expected, "{text}");
        }
    }
}
