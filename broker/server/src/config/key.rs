//! What is known of one configuration key, and the checks of its values with Kafka's own words.

use std::net::IpAddr;

use super::typed::FromText;

/// Type of a value, as DescribeConfigs names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, in any case.
    Boolean,
    /// Signed 32 bits.
    Int,
    /// Signed 16 bits.
    Short,
    /// Signed 64 bits.
    Long,
    /// A floating-point number.
    Double,
    /// Any text.
    String,
    /// Texts separated by commas.
    List,
    /// A Java class name.
    Class,
    /// A text that is never shown.
    Password,
}

impl Kind {
    /// The number DescribeConfigs uses.
    pub const fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Short => 4,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
            Kind::Class => 8,
            Kind::Password => 9,
        }
    }

    /// Name in the reference and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Short => "SHORT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
            Kind::Class => "CLASS",
            Kind::Password => "PASSWORD",
        }
    }
}

/// Which values of the type are allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// All of them.
    Any,
    /// This number or more.
    AtLeast(i64),
    /// Both ends included.
    Between(i64, i64),
    /// As `Between`, or one number outside.
    BetweenOr(i64, i64, i64),
    /// One of these texts; of a list, every element.
    OneOf(&'static [&'static str]),
    /// As `OneOf`, in any case.
    OneOfAnyCase(&'static [&'static str]),
    /// A text that is not empty.
    NonEmpty,
    /// `*`, or a list of partition:broker.
    ThrottledReplicas,
    /// A list of which one element is a plain choice and the others are `topic-pattern=choice`.
    ByTopic(&'static [&'static str]),
    /// A list of IP address:number.
    PerAddress,
}

/// Whether a running broker takes a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {
    /// Only at start.
    No,
    /// At any time, for one broker or for all.
    Yes,
}

/// How Kafka ranks the key's importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Level {
    High,
    Medium,
    Low,
}

/// What Millrace does with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It has the effect described.
    Honoured,
    /// It is accepted and has no effect; the reason.
    Noted(&'static str),
    /// Anything but the default stops the start; the reason.
    Refused(&'static str),
}

/// One key: its name in Kafka, or ours with the prefix `millrace.`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // each field is a type that says it
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// As text; `None` is Kafka's null.
    pub default: Option<&'static str>,
    pub range: Range,
    pub level: Level,
    pub dynamic: Dynamic,
    pub treatment: Treatment,
    pub doc: &'static str,
    /// The broker keys that a key of topics or groups inherits from, first wins, and the factor
    /// to its unit.
    pub inherits: &'static [(&'static str, i64)],
}

/// A value that may not be given to a key, in the words Kafka's tools and tests expect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid value {value} for configuration {key}: {reason}")]
pub struct BadValue {
    /// The key.
    pub key: String,
    /// The value as Kafka prints it.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Key {
    /// True if the key belongs to Kafka's internal ones, which DescribeConfigs leaves out.
    pub fn is_internal(&self) -> bool {
        self.name.starts_with("internal.")
            || self.name.starts_with("unstable.")
            || matches!(
                self.name,
                "log.initial.task.delay.ms" | "producer.id.expiration.check.interval.ms"
            )
    }

    /// Checks a text against type and range.
    ///
    /// # Errors
    /// [`BadValue`] with the text Kafka 4.3 gives for the same value.
    pub fn check(&self, text: &str) -> Result<(), BadValue> {
        let text = text.trim();
        let bad = |value: &str, reason: String| {
            Err(BadValue { key: self.name.into(), value: value.into(), reason })
        };
        let not_a_number = || bad(text, format!("Not a number of type {}", self.kind.name()));
        match self.kind {
            Kind::Boolean => {
                if !text.eq_ignore_ascii_case("true") && !text.eq_ignore_ascii_case("false") {
                    return bad(text, "Expected value to be either true or false".into());
                }
                Ok(())
            }
            Kind::Int | Kind::Short | Kind::Long => {
                let number = match self.kind {
                    Kind::Int => text.parse::<i32>().map(i64::from),
                    Kind::Short => text.parse::<i16>().map(i64::from),
                    _ => text.parse::<i64>(),
                };
                let Ok(number) = number else { return not_a_number() };
                // Bounds are small integers, exact in f64; the number may round, never across one.
                self.check_number(number as f64, &number.to_string())
            }
            Kind::Double => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => self.check_number(number, &java_double(number)),
                _ => not_a_number(),
            },
            Kind::List => {
                if let Some((element, reason)) = split_list(text)
                    .find_map(|element| Some((element, self.text_fault(element, text)?)))
                {
                    let shown = match self.range {
                        Range::ThrottledReplicas => format!("[{}]", text.replace(',', ", ")),
                        _ => element.to_owned(),
                    };
                    return bad(&shown, reason);
                }
                Ok(())
            }
            Kind::String | Kind::Class | Kind::Password => match self.text_fault(text, text) {
                Some(reason) => bad(text, reason),
                None => Ok(()),
            },
        }
    }

    fn check_number(&self, number: f64, shown: &str) -> Result<(), BadValue> {
        let reason = match self.range {
            Range::AtLeast(least) | Range::Between(least, _) if number < least as f64 => {
                format!("Value must be at least {least}")
            }
            Range::Between(_, most) if number > most as f64 => {
                format!("Value must be no more than {most}")
            }
            Range::BetweenOr(least, most, other)
                if (number < least as f64 || number > most as f64) && number != other as f64 =>
            {
                format!("Value must be between {least} and {most} or equal to {other}")
            }
            _ => return Ok(()),
        };
        Err(BadValue { key: self.name.into(), value: shown.into(), reason })
    }

    fn text_fault(&self, element: &str, whole: &str) -> Option<String> {
        let is_choice = |choices: &[&str]| choices.contains(&element);
        match self.range {
            Range::OneOf(choices) if !is_choice(choices) => {
                Some(format!("String must be one of: {}", choices.join(", ")))
            }
            Range::OneOfAnyCase(choices)
                if !choices.iter().any(|choice| choice.eq_ignore_ascii_case(element)) =>
            {
                Some(format!("String must be one of (case insensitive): {}", choices.join(", ")))
            }
            Range::NonEmpty if element.is_empty() => Some("String must be non-empty".into()),
            Range::ThrottledReplicas if whole != "*" && !is_replica(element) => Some(format!(
                "{} must be the literal '*' or a list of replicas in the following format: \
                 [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                self.name
            )),
            Range::ByTopic(choices)
                if !choices.contains(&element.rsplit_once('=').map_or(element, |pair| pair.1)) =>
            {
                Some(format!(
                    "must be one of {}, then any number of TOPIC-PATTERN=CHOICE",
                    choices.join(", ")
                ))
            }
            Range::PerAddress if PerAddress::from_text(Some(whole)).is_none() => {
                Some("must be a list of IP address:number".into())
            }
            _ => None,
        }
    }
}

/// A number for each of some addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct PerAddress(pub Vec<(IpAddr, i32)>);

impl FromText for PerAddress {
    fn from_text(text: Option<&str>) -> Option<Self> {
        let pairs = split_list(text?.trim()).map(|pair| {
            let (address, number) = pair.rsplit_once(':')?;
            let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
            Some((address.to_canonical(), number.parse().ok().filter(|number| *number >= 0)?))
        });
        pairs.collect::<Option<_>>().map(Self)
    }
}

/// Elements of a list value; none for an empty text.
pub fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(move |element| !text.is_empty() && !element.is_empty())
}

fn is_replica(element: &str) -> bool {
    element.split_once(':').is_some_and(|(partition, broker)| {
        [partition, broker]
            .iter()
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// A double as Java prints it: always with a decimal point.
pub fn java_double(number: f64) -> String {
    if number.abs() >= 1e7 { format!("{number:E}") } else { format!("{number:?}") }
}
