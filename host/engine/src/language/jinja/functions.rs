//! Functions.

use super::arguments::Args;
use super::budget::Budget;
use super::error::Cause;
use super::text::Writer;
use super::value::{Function, Value};

/// Names of all functions, for messages.
pub(super) const ALLOWED: &str =
    "dict, namespace, raise_exception, range, strftime_now, and the template's own macros";

pub(super) fn call(function: Function, args: &Args, now: i64, budget: &Budget) -> Result<Value, Cause> {
    match function {
        Function::RaiseException => {
            args.only(&["message"])?;
            let mut message = Writer::new(budget);
            message.string(args.need(0, "message")?)?;
            Err(Cause::Refused(message.into_text()))
        }
        Function::StrftimeNow => {
            args.only(&["format"])?;
            let format = args.text(0, "format")?.unwrap_or("%Y-%m-%d");
            strftime(format, now, budget)
        }
        Function::Namespace => {
            let mut attributes = Vec::new();
            if let Some(Value::Map(map)) = args.positional.first() {
                budget.values(map.entries.len())?;
                for (key, value) in &map.entries {
                    let name = key.text().ok_or_else(|| Cause::failed("a name must be a string"))?;
                    attributes.push((name.into(), value.clone()));
                }
            }
            budget.values(args.named.len())?;
            attributes.extend(args.named.iter().cloned());
            Value::namespace(attributes)
        }
        Function::Range => {
            args.only(&["start", "stop", "step"])?;
            let number = |place, name| {
                let value = args.need(place, name)?;
                value.integer().ok_or_else(|| Cause::Failed(format!("{}, expected an integer", value.kind())))
            };
            let (start, stop) = if args.positional.len() < 2 {
                (0, number(0, "stop")?)
            } else {
                (number(0, "start")?, number(1, "stop")?)
            };
            let step = if args.positional.len() > 2 { number(2, "step")? } else { 1 };
            if step == 0 {
                return Err(Cause::failed("step is 0"));
            }
            // In 128 bits, so that nothing overflows.
            let (start, stop, step) = (i128::from(start), i128::from(stop), i128::from(step));
            let count =
                if step > 0 { (stop - start + step - 1) / step } else { (stop - start + step + 1) / step };
            let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
            budget.values(count)?;
            Value::list((0..count as i128).map(|at| Value::Integer((start + at * step) as i64)).collect())
        }
        Function::Dict => {
            let mut entries = Vec::new();
            if let Some(Value::Map(map)) = args.positional.first() {
                budget.values(map.entries.len() * 2)?;
                entries.extend(map.entries.iter().cloned());
            }
            budget.values(args.named.len() * 2)?;
            entries.extend(args.named.iter().map(|(name, value)| (Value::Text(name.clone()), value.clone())));
            Value::map(entries, budget)
        }
    }
}

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Formats a time in UTC, with a format of `strftime`.
fn strftime(format: &str, seconds: i64, budget: &Budget) -> Result<Value, Cause> {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let (year, month, day) = date(days);
    let weekday = DAYS[(days + 4).rem_euclid(7) as usize];
    let name = MONTHS[month as usize - 1];
    let hour_of_12 = (hour + 11) % 12 + 1;
    let mut text = Writer::new(budget);
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character.encode_utf8(&mut [0; 4]))?;
            continue;
        }
        let mut code = characters.next();
        // `%-d` omits the leading zero.
        let is_bare = code == Some('-');
        if is_bare {
            code = characters.next();
        }
        let number = |number: i64, width: usize| {
            if is_bare { number.to_string() } else { format!("{number:0width$}") }
        };
        let part = match code {
            Some('Y') => year.to_string(),
            Some('y') => number(year.rem_euclid(100), 2),
            Some('m') => number(month, 2),
            Some('B') => name.to_owned(),
            Some('b' | 'h') => name[..3].to_owned(),
            Some('d') => number(day, 2),
            Some('e') => format!("{day:2}"),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('w') => (days + 4).rem_euclid(7).to_string(),
            Some('j') => number(days - first_day(year) + 1, 3),
            Some('H') => number(hour, 2),
            Some('I') => number(hour_of_12, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('%') => "%".to_owned(),
            other => {
                let other = other.map(String::from).unwrap_or_default();
                return Err(Cause::Failed(format!("`%{other}` is not a supported date format")));
            }
        };
        text.push(&part)?;
    }
    Ok(text.value())
}

/// Year, month and day, `days` after 1970-01-01 in the Gregorian calendar. Computed in eras of 400
/// years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The first day of a year, in days after 1970-01-01.
fn first_day(year: i64) -> i64 {
    let before = year - 1;
    365 * (year - 1970) + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 477
}

#[cfg(test)]
mod unit_tests {
    use super::super::budget::Bounds;
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        let budget = Budget::new(&Bounds { steps: 1_000, bytes: 10_000, output: 0 });
        let cases = [
            (0, "1970-01-01 Thursday 001"),
            (951_782_400, "2000-02-29 Tuesday 060"),
            (1_735_689_599, "2024-12-31 Tuesday 366"),
            (1_772_323_200, "2026-03-01 Sunday 060"),
            (4_107_542_400, "2100-03-01 Monday 060"),
            (-1, "1969-12-31 Wednesday 365"),
        ];
        for (seconds, expected) in cases {
            let text = strftime("%F %A %j", seconds, &budget).unwrap();
            assert_eq!(text.text(), Some(expected), "{seconds}");
        }
        let text = strftime("%d %b %Y|%-d %B %y|%H:%M:%S %I %p %% %e", 86_400 * 4 + 3_661 + 43_200, &budget);
        assert_eq!(text.unwrap().text(), Some("05 Jan 1970|5 January 70|13:01:01 01 PM %  5"));
        assert!(strftime("%Q", 0, &budget).is_err() && strftime("%", 0, &budget).is_err());
    }
}
