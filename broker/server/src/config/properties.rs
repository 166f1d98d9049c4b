//! Reads Java properties text: comments, continued lines, escapes, `=`, `:` or a blank between key
//! and value. The grammar is that of `java.util.Properties.load`; the first line number of each
//! entry is kept for messages.

/// One entry of a properties file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Unescaped key.
    pub key: String,
    /// Unescaped value, without blanks before it; blanks after it belong to it, as in Java.
    pub value: String,
    /// Counts from 1.
    pub line: usize,
}

/// A `\u` escape without four hexadecimal digits: the one thing the grammar refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed \\u escape in line {line}")]
pub struct BadEscape {
    /// Line of the entry.
    pub line: usize,
}

/// Entries in the order of the file.
///
/// # Errors
/// [`BadEscape`].
pub fn parse(text: &str) -> Result<Vec<Property>, BadEscape> {
    let mut entries = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let line = line.trim_start_matches(is_blank);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        while ends_in_continuation(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start_matches(is_blank)),
                None => break,
            }
        }
        let line = index + 1;
        let (key, value) = split(&logical);
        let unescaped = |part| unescape(part).ok_or(BadEscape { line });
        entries.push(Property { key: unescaped(key)?, value: unescaped(value)?, line });
    }
    Ok(entries)
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

fn ends_in_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Cuts at the first unescaped blank, `=` or `:`; one `=` or `:` with blanks around it is the cut.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let is_end = |character: char| {
        let ends = !escaped && (is_blank(character) || matches!(character, '=' | ':'));
        escaped = character == '\\' && !escaped;
        ends
    };
    let Some(key_end) = line.find(is_end) else { return (line, "") };
    let rest = line[key_end..].trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..key_end], rest.trim_start_matches(is_blank))
}

fn unescape(part: &str) -> Option<String> {
    let mut utf16 = Vec::with_capacity(part.len());
    let mut characters = part.chars();
    while let Some(character) = characters.next() {
        let plain = match character {
            '\\' => match characters.next()? {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                'f' => '\u{c}',
                'u' => {
                    let digits = characters.as_str().get(..4)?;
                    utf16.push(u16::from_str_radix(digits, 16).ok()?);
                    characters = characters.as_str()[4..].chars();
                    continue;
                }
                other => other,
            },
            other => other,
        };
        utf16.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    Some(String::from_utf16_lossy(&utf16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_java_reads() {
        type Entries = &'static [(&'static str, &'static str, usize)];
        let rows: &[(&str, Entries)] = &[
            ("", &[]),
            ("# a\n! b\n\n  # c\na=1", &[("a", "1", 5)]),
            (
                "a = 1\nb:2\nc 3\nd\ne==1\nf : = 2",
                &[
                    ("a", "1", 1),
                    ("b", "2", 2),
                    ("c", "3", 3),
                    ("d", "", 4),
                    ("e", "=1", 5),
                    ("f", "= 2", 6),
                ],
            ),
            ("a=1,\\\n   2,\\\n\t3\nb=4", &[("a", "1,2,3", 1), ("b", "4", 4)]),
            ("a=x\\\\\nb=y", &[("a", "x\\", 1), ("b", "y", 2)]),
            ("a\\=b=c\\:d", &[("a=b", "c:d", 1)]),
            ("path=C:\\\\tmp\\tx", &[("path", "C:\\tmp\tx", 1)]),
            ("n=\\u00e9\\uD83D\\uDE00", &[("n", "é😀", 1)]),
            ("a=1 \r\nb=2", &[("a", "1 ", 1), ("b", "2", 2)]),
            ("a=b # not a comment", &[("a", "b # not a comment", 1)]),
            ("last=\\", &[("last", "", 1)]),
        ];
        for (text, expected) in rows {
            let found = parse(text).expect("no \\u escape is malformed");
            let found: Vec<_> =
                found.iter().map(|entry| (&*entry.key, &*entry.value, entry.line)).collect();
            assert_eq!(&found, expected, "{text:?}");
        }
    }

    #[test]
    fn refuses_a_short_unicode_escape() {
        for text in ["\na=\\u12", "\na=\\u12g4", "\na=\\uééé"] {
            assert_eq!(parse(text), Err(BadEscape { line: 2 }), "{text:?}");
        }
    }
}
