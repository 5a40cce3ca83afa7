//! How Go's programs, and so docker's users, write durations, sizes and times: read here, and printed here.

use jiff::Timestamp;
use std::str::FromStr;
use std::time::Duration;

/// A duration of a flag: nanoseconds, as Docker's JSON has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl FromStr for Nanos {
    type Err = String;

    /// Go's syntax: "1m30s", "500ms", "1.5h", "0".
    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("{text:?} is no duration: want a number and a unit (ns, us, ms, s, m, h), as 500ms or 1m30s");
        if text.starts_with('-') {
            return Err("a duration can't be negative".to_owned());
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(bad());
        }
        let mut total: u128 = 0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, tail) = rest.split_at_checked(end).ok_or_else(bad)?;
            let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at_checked(unit_end).ok_or_else(bad)?;
            let scale = unit_nanos(unit).ok_or_else(bad)?;
            total = total.saturating_add(scaled(number, scale).ok_or_else(bad)?);
            rest = tail;
        }
        // Docker's durations are signed.
        i64::try_from(total)
            .map(|nanos| Self(nanos.unsigned_abs()))
            .map_err(|_| format!("{text:?} is too long a duration"))
    }
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// A decimal number times `scale`, exactly; what is left below one is cut off.
fn scaled(number: &str, scale: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 18 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let fraction = fraction.get(..fraction.len().min(18))?;
    let power = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(digits(whole)? * u128::from(scale) + digits(fraction)? * u128::from(scale) / power)
}

/// Bytes of a flag, in powers of 1024: "64m", "1.5g", "512KiB", "1024".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no size: want a number with b, k, m, g, t or nothing behind it, as 64m");
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(end).ok_or_else(bad)?;
        let power = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "ki" | "kib" => 1,
            "m" | "mb" | "mi" | "mib" => 2,
            "g" | "gb" | "gi" | "gib" => 3,
            "t" | "tb" | "ti" | "tib" => 4,
            "p" | "pb" | "pi" | "pib" => 5,
            _ => return Err(bad()),
        };
        let bytes = scaled(number, 1 << (10 * power)).ok_or_else(bad)?;
        i64::try_from(bytes)
            .map(|bytes| Self(bytes.unsigned_abs()))
            .map_err(|_| format!("{text:?} is too large a size"))
    }
}

/// A moment of a flag: so long ago, or then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Ago(u64),
    At(Timestamp),
}

/// "10m", "2026-11-22T20:26:09Z", or seconds since 1970.
pub fn since(text: &str) -> Result<Since, String> {
    // As docker has it: "0" is 1970, "0s" is now.
    if let Ok(Nanos(nanos)) = text.parse()
        && text != "0"
    {
        return Ok(Since::Ago(nanos));
    }
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..1e10).contains(seconds));
    let at = match seconds {
        Some(seconds) => Timestamp::from_duration(jiff::SignedDuration::from_secs_f64(seconds)).ok(),
        None => text.parse().ok(),
    };
    at.map(Since::At).ok_or_else(|| "want 10m, a time as 2026-11-22T20:26:09Z, or seconds since 1970".to_owned())
}

impl Since {
    /// Seconds since 1970 with nine digits behind the point, as Docker's parameters have them.
    pub fn seconds(self, now: Timestamp) -> String {
        let nanos = match self {
            Since::Ago(nanos) => now.as_nanosecond() - i128::from(nanos),
            Since::At(at) => at.as_nanosecond(),
        };
        let nanos = nanos.max(0);
        format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
    }
}

/// CPUs of a flag, in billionths: "0.5", "2".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NanoCpus(pub u64);

impl FromStr for NanoCpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no number of CPUs: want one as 2 or 0.5");
        if text.split_once('.').is_some_and(|(_, fraction)| fraction.trim_end_matches('0').len() > 9) {
            return Err(format!("{text:?} is too precise: a CPU has a billion parts"));
        }
        let cpus = scaled(text, 1_000_000_000).ok_or_else(bad)?;
        i64::try_from(cpus).map(|cpus| Self(cpus.unsigned_abs())).map_err(|_| bad())
    }
}

/// Go's ParseBool, for `--detach=false`.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("want true or false".to_owned()),
    }
}

/// As Go prints a duration: "1m30s", "500ms", "0s".
pub fn duration(nanos: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..SECOND => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanos / (60 * SECOND), nanos % (60 * SECOND));
            let seconds = format!("{}s", fraction(rest, SECOND));
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

fn fraction(value: u64, unit: u64) -> String {
    let width = unit.ilog10() as usize;
    let text = format!("{}.{:0width$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Four significant digits in powers of 1024: "23.54GiB".
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    #[allow(clippy::cast_precision_loss)]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS.get(unit).unwrap_or(&"B"))
}

/// "About a minute", "3 weeks": as docker rounds ages.
pub fn human(age: Duration) -> String {
    let (seconds, minutes) = (age.as_secs(), age.as_secs() / 60);
    let hours = (age.as_secs() + 1_800) / 3_600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", age.as_secs() / 3_600 / 24 / 365),
    }
}

/// How long before `now` the RFC 3339 text was; nothing if it can't be read, zero if it is to come.
pub fn age(text: &str, now: Timestamp) -> Option<Duration> {
    let at: Timestamp = text.parse().ok()?;
    Some(Duration::try_from(now.duration_since(at)).unwrap_or_default())
}

pub fn ago(text: &str, now: Timestamp) -> String {
    age(text, now).map_or_else(|| "at an unknown time".to_owned(), |age| format!("{} ago", human(age)))
}

/// Go's default layout of a time in UTC, in docker's lower case: "2026-11-22 20:26:09.341145961 +0000 utc".
pub fn long_time(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => format!("{} +0000 utc", at.strftime("%Y-%m-%d %H:%M:%S%.f")),
        Err(_) => text.to_owned(),
    }
}

/// First letter large, the rest small: docker's way with states.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let nanos = |text: &str| text.parse::<Nanos>().map(|n| n.0);
        assert_eq!(nanos("1m30s"), Ok(90_000_000_000));
        assert_eq!(nanos("500ms"), Ok(500_000_000));
        assert_eq!(nanos("1.5h"), Ok(5_400_000_000_000));
        assert_eq!(nanos(".5s"), Ok(500_000_000));
        assert_eq!(nanos("0"), Ok(0));
        assert_eq!(nanos("1us2ns"), Ok(1_002));
        for bad in ["", "5", "s", "1x", "-1s", "1.2.3s", ".s", "1 s", "99999999999999999999h", "300000000h"] {
            assert!(nanos(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for text in ["0s", "5s", "1m30s", "500ms", "1.5s", "1h0m0s", "2h3m4.5s", "12µs", "7ns"] {
            assert_eq!(duration(text.parse::<Nanos>().unwrap().0), text);
        }
    }

    #[test]
    fn sizes_and_cpus() {
        let bytes = |text: &str| text.parse::<Bytes>().map(|b| b.0).ok();
        assert_eq!(bytes("64m"), Some(67_108_864));
        assert_eq!(bytes("64M"), bytes("64MiB"));
        assert_eq!(bytes("1.5g"), Some(1_610_612_736));
        assert_eq!(bytes("1024"), Some(1024));
        assert_eq!((bytes("64x"), bytes(""), bytes("-1m"), bytes("m")), (None, None, None, None));
        let cpus = |text: &str| text.parse::<NanoCpus>().map(|c| c.0).ok();
        assert_eq!((cpus("0.5"), cpus("2"), cpus(".000000001")), (Some(500_000_000), Some(2_000_000_000), Some(1)));
        assert_eq!((cpus("0.0000000001"), cpus("two"), cpus("-1")), (None, None, None));
        assert_eq!(size(25_276_510_208), "23.54GiB");
        assert_eq!(size(67_108_864), "64MiB");
        assert_eq!(size(1_000), "1000B");
    }

    #[test]
    fn ages_are_rounded_as_docker_rounds_them() {
        let human = |seconds: u64| human(Duration::from_secs(seconds));
        assert_eq!(human(0), "Less than a second");
        assert_eq!(human(1), "1 second");
        assert_eq!(human(59), "59 seconds");
        assert_eq!(human(119), "About a minute");
        assert_eq!(human(45 * 60), "45 minutes");
        assert_eq!(human(89 * 60), "About an hour");
        assert_eq!(human(47 * 3_600), "47 hours");
        assert_eq!(human(3 * 86_400), "3 days");
        assert_eq!(human(20 * 86_400), "2 weeks");
        assert_eq!(human(90 * 86_400), "3 months");
        assert_eq!(human(3 * 365 * 86_400), "3 years");
    }

    #[test]
    fn times() {
        assert_eq!(long_time("2026-11-22T20:26:09.341145961Z"), "2026-11-22 20:26:09.341145961 +0000 utc");
        assert_eq!(long_time("2026-11-22T20:26:09Z"), "2026-11-22 20:26:09 +0000 utc");
        let now: Timestamp = "2026-11-22T20:26:14.5Z".parse().unwrap();
        assert_eq!(ago("2026-11-22T20:26:09.341145961Z", now), "5 seconds ago");
        assert_eq!(ago("2027-11-22T20:26:09Z", now), "Less than a second ago", "clocks differ");
    }
}
