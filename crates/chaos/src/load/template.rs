//! Names and topics with places to fill in, as emqtt-bench has them: `%i` the client's number, `%c` its
//! client id, `%u` its user name, `%s` the number of the message, `%%` a percent sign. `%4i` is the
//! client's number modulo 4, for topics that several clients share.
//!
//! What is the same for all messages of a client is filled in once; only `%s` costs anything later.

use std::fmt::Write as _;

/// A text that cannot be a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A letter that stands for nothing.
    #[error("%{0} means nothing here; there are %i, %c, %u, %s and %% for a percent sign")]
    Unknown(char),
    /// A number of groups that is none.
    #[error("the number in %4i is one above 0 and below 2^64")]
    Modulus,
    /// A percent sign at the end.
    #[error("a percent sign at the end; write %% for one")]
    Open,
    /// A message number where there is no message.
    #[error("%s is the number of a message, and stands in topics alone")]
    NoMessage,
}

/// One part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The client's number, modulo this if there is one.
    Index(Option<u64>),
    ClientId,
    Username,
    Sequence,
}

/// A text with places to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// What is filled in for one client.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Its number.
    pub index: u64,
    /// Its client id.
    pub client_id: &'a str,
    /// Its user name.
    pub username: &'a str,
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                plain.push(c);
                continue;
            }
            let mut digits = String::new();
            let letter = loop {
                match rest.next() {
                    Some(digit) if digit.is_ascii_digit() => digits.push(digit),
                    letter => break letter,
                }
            };
            let part = match letter {
                Some('i') if digits.is_empty() => Part::Index(None),
                Some('i') => match digits.parse() {
                    Ok(modulus) if modulus > 0 => Part::Index(Some(modulus)),
                    _ => return Err(TemplateError::Modulus),
                },
                Some(other) if !digits.is_empty() => return Err(TemplateError::Unknown(other)),
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some('c') => Part::ClientId,
                Some('u') => Part::Username,
                Some('s') => Part::Sequence,
                Some(other) => return Err(TemplateError::Unknown(other)),
                None => return Err(TemplateError::Open),
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// Whether each message has a text of its own.
    pub fn is_numbered(&self) -> bool {
        self.parts.contains(&Part::Sequence)
    }

    /// The template with everything filled in but the message's number.
    pub fn of_client(&self, client: Client<'_>) -> Template {
        let mut parts: Vec<Part> = Vec::new();
        for part in &self.parts {
            let text = match part {
                Part::Text(text) => text.clone(),
                Part::Index(None) => client.index.to_string(),
                Part::Index(Some(modulus)) => (client.index % modulus).to_string(),
                Part::ClientId => client.client_id.to_owned(),
                Part::Username => client.username.to_owned(),
                Part::Sequence => {
                    parts.push(Part::Sequence);
                    continue;
                }
            };
            match parts.last_mut() {
                Some(Part::Text(before)) => before.push_str(&text),
                _ => parts.push(Part::Text(text)),
            }
        }
        Template { parts }
    }

    /// Writes the text for message `sequence` behind what `out` holds. Places of a client that were not
    /// filled in stay empty.
    pub fn write(&self, out: &mut String, sequence: u64) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Sequence => {
                    let _ = write!(out, "{sequence}");
                }
                Part::Index(_) | Part::ClientId | Part::Username => {}
            }
        }
    }

    /// The filter that a subscriber needs to get everything that is published to such topics: a level
    /// with a place in it becomes `+`.
    pub fn filter(&self) -> String {
        const PLACE: char = '\u{0}';
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                _ => text.push(PLACE),
            }
        }
        let levels = text
            .split('/')
            .map(|level| if level.contains(PLACE) { "+" } else { level });
        levels.collect::<Vec<_>>().join("/")
    }
}

/// A template of a client's id: all but `%i` makes no sense in it.
pub fn parse_client_id(text: &str) -> Result<Template, TemplateError> {
    let template = Template::parse(text)?;
    for part in &template.parts {
        match part {
            Part::Sequence => return Err(TemplateError::NoMessage),
            Part::ClientId => return Err(TemplateError::Unknown('c')),
            Part::Username => return Err(TemplateError::Unknown('u')),
            Part::Text(_) | Part::Index(_) => {}
        }
    }
    Ok(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, sequence: u64) -> String {
        let client = Client {
            index: 7,
            client_id: "load-7",
            username: "ada",
        };
        let mut text = String::new();
        Template::parse(template)
            .unwrap()
            .of_client(client)
            .write(&mut text, sequence);
        text
    }

    #[test]
    fn places_are_filled_in() {
        assert_eq!(filled("a/%i/%c/%u/%s/100%%", 3), "a/7/load-7/ada/3/100%");
        assert_eq!(filled("plain", 3), "plain");
        assert_eq!(filled("%i%i", 0), "77");
        assert_eq!(filled("%4i/%10i/%1i", 0), "3/7/0");
        assert!(Template::parse("t/%s").unwrap().is_numbered());
        assert!(!Template::parse("t/%i").unwrap().is_numbered());
    }

    #[test]
    fn filters_take_in_every_topic() {
        for (template, filter) in [
            ("bench/%i", "bench/+"),
            ("a/x-%c-y/%s/z", "a/+/+/z"),
            ("plain/topic", "plain/topic"),
            ("%i", "+"),
        ] {
            assert_eq!(Template::parse(template).unwrap().filter(), filter);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Template::parse("a%d"), Err(TemplateError::Unknown('d')));
        assert_eq!(Template::parse("a%"), Err(TemplateError::Open));
        assert_eq!(Template::parse("a%4"), Err(TemplateError::Open));
        assert_eq!(Template::parse("a%4c"), Err(TemplateError::Unknown('c')));
        assert_eq!(Template::parse("a%0i"), Err(TemplateError::Modulus));
        assert_eq!(parse_client_id("c-%s"), Err(TemplateError::NoMessage));
        assert_eq!(parse_client_id("c-%u"), Err(TemplateError::Unknown('u')));
        assert!(parse_client_id("c-%i").is_ok());
    }
}
