//! Choices that only Millrace has, made for all topics and then for topics by pattern. They stay in
//! the broker's own file, because Kafka's controllers refuse topic keys they do not know.

use super::typed::FromText;

/// How segments are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Direct where the file system allows.
    #[default]
    Auto,
    /// Past the page cache.
    Direct,
    /// Through the page cache.
    Buffered,
}

/// What acks=all waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcksAll {
    /// A flush that covers the write.
    #[default]
    Flush,
    /// The write.
    Write,
}

/// A choice for all topics, and others for topics whose names match a pattern with `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByTopic<T> {
    default: T,
    /// The first that matches wins.
    patterns: Vec<(String, T)>,
}

impl<T: Copy> ByTopic<T> {
    /// The choice for one topic.
    pub fn of(&self, topic: &str) -> T {
        self.patterns
            .iter()
            .find(|(pattern, _)| matches(pattern.as_bytes(), topic.as_bytes()))
            .map_or(self.default, |(_, choice)| *choice)
    }

    /// The choice for topics that match no pattern.
    pub fn default_choice(&self) -> T {
        self.default
    }
}

/// `*` stands for any run of characters.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while from < name.len() {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at, from));
            at += 1;
        } else if pattern.get(at) == Some(&name[from]) {
            (at, from) = (at + 1, from + 1);
        } else if let Some((star, start)) = retry {
            retry = Some((star, start + 1));
            (at, from) = (star + 1, start + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

impl FromText for WriteMode {
    fn from_text(text: Option<&str>) -> Option<Self> {
        match text? {
            "auto" => Some(Self::Auto),
            "direct" => Some(Self::Direct),
            "buffered" => Some(Self::Buffered),
            _ => None,
        }
    }
}

impl FromText for AcksAll {
    fn from_text(text: Option<&str>) -> Option<Self> {
        match text? {
            "flush" => Some(Self::Flush),
            "write" => Some(Self::Write),
            _ => None,
        }
    }
}

impl<T: FromText + Copy + Default> FromText for ByTopic<T> {
    fn from_text(text: Option<&str>) -> Option<Self> {
        let mut choices = Self { default: T::default(), patterns: Vec::new() };
        for element in super::key::split_list(text?) {
            match element.rsplit_once('=') {
                Some((pattern, choice)) => {
                    choices.patterns.push((pattern.to_owned(), T::from_text(Some(choice))?));
                }
                None => choices.default = T::from_text(Some(element))?,
            }
        }
        Some(choices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_pattern_wins() {
        let choices: ByTopic<AcksAll> =
            FromText::from_text(Some("write, orders=flush, log-*-x=flush, *=write"))
                .expect("well formed");
        for (topic, choice) in [
            ("orders", AcksAll::Flush),
            ("orders2", AcksAll::Write),
            ("log-a-x", AcksAll::Flush),
            ("log-a-b-x", AcksAll::Flush),
            ("log-a-b-x-", AcksAll::Write),
        ] {
            assert_eq!(choices.of(topic), choice, "{topic}");
        }
    }
}
