//! The words in which one operation of the hub is written down: who may, what goes in, what comes out.
//!
//! Constants and nothing else, so that a table of them is one too. What is said with them stands beside this file, one
//! area each; how it becomes a document is in [`super::write`].

use dunlin_model::directory::Right;

/// What an operation does, and how it is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    /// In lower case, as OpenAPI has it.
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Other spellings of the path, which clients use.
    pub(super) also: &'static [&'static str],
    /// Its name for generators of clients.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) access: Access,
    pub(super) parameters: &'static [Parameter],
    pub(super) body: Option<Body>,
    pub(super) replies: &'static [Reply],
    pub(super) refusals: Refusals,
    /// Whether a page can send it. An upgrade to another protocol it cannot.
    pub(super) can_be_tried: bool,
}

/// Who may.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    /// Anybody.
    Open,
    /// A policy that grants one of these, or the admin.
    Service(&'static [Right]),
    /// The device that the path names: by its key, a policy that speaks for devices, or its certificate.
    Device,
    /// A device that registers, by what its enrolment says.
    Registering,
    /// Whoever has a token that stands in the body.
    InBody,
    /// Whoever has the token of an upload in the query.
    Upload,
}

/// How refusals are written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusals {
    /// In the form of IoT Hub, with these statuses.
    Hub(&'static [u16]),
    /// In the form of DPS, with these statuses.
    Provisioning(&'static [u16]),
    /// In the form of Azure Storage, with these statuses.
    Storage(&'static [u16]),
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

/// A parameter. Those with one key are one and the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    /// Its name among the document's components.
    pub(super) key: &'static str,
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) description: &'static str,
    pub(super) kind: Kind,
    pub(super) example: &'static str,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Text of so many characters at the most; 0 for no bound of its own.
    Text(usize),
    /// A whole number, from and to.
    Number(u64, u64),
    /// A word of a list.
    Word(&'static [&'static str]),
}

/// The body of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    pub(super) content: Content,
    pub(super) is_required: bool,
    /// JSON, or plain text for content that is none.
    pub(super) example: &'static str,
}

/// What a body is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    /// Nothing.
    Nothing,
    /// JSON after the schema of this name.
    Json(&'static str),
    /// A list of it.
    List(&'static str),
    /// JSON after one of these.
    Either(&'static [&'static str]),
    /// JSON under a name of its own: media type, schema of each entry.
    ListAs(&'static str, &'static str),
    /// JSON, or server-sent events for those who ask for them.
    JsonOrEvents(&'static str),
    /// JSON under a name of its own: media type, schema.
    JsonAs(&'static str, &'static str),
    /// Server-sent events.
    Events,
    /// Whatever bytes.
    Bytes,
    /// Text of this media type.
    Text(&'static str),
}

/// An answer that is no refusal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) description: &'static str,
    pub(super) content: Content,
    /// Names and descriptions.
    pub(super) headers: &'static [(&'static str, &'static str)],
}

impl Operation {
    /// Asked with `method` for `path`. Its other parts are added to it.
    pub(super) const fn new(
        method: &'static str,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        access: Access,
    ) -> Self {
        Self {
            method,
            path,
            also: &[],
            id,
            summary,
            description: "",
            access,
            parameters: &[],
            body: None,
            replies: &[],
            refusals: Refusals::Hub(&[]),
            can_be_tried: true,
        }
    }

    pub(super) const fn also(mut self, also: &'static [&'static str]) -> Self {
        self.also = also;
        self
    }

    pub(super) const fn says(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    pub(super) const fn with(mut self, parameters: &'static [Parameter]) -> Self {
        self.parameters = parameters;
        self
    }

    /// Takes JSON, which must be there.
    pub(super) const fn takes(self, schema: &'static str, example: &'static str) -> Self {
        self.takes_body(Body {
            content: Content::Json(schema),
            is_required: true,
            example,
        })
    }

    pub(super) const fn takes_body(mut self, body: Body) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) const fn replies(mut self, replies: &'static [Reply]) -> Self {
        self.replies = replies;
        self
    }

    /// Refuses with these statuses, beside those that every operation of its kind may refuse with.
    pub(super) const fn refuses(mut self, statuses: &'static [u16]) -> Self {
        self.refusals = Refusals::Hub(statuses);
        self
    }

    /// The same in the form of DPS.
    pub(super) const fn refuses_as_dps(mut self, statuses: &'static [u16]) -> Self {
        self.refusals = Refusals::Provisioning(statuses);
        self
    }

    /// The same in the form of Azure Storage.
    pub(super) const fn refuses_as_storage(mut self, statuses: &'static [u16]) -> Self {
        self.refusals = Refusals::Storage(statuses);
        self
    }

    pub(super) const fn not_from_a_page(mut self) -> Self {
        self.can_be_tried = false;
        self
    }
}

impl Reply {
    pub(super) const fn new(status: u16, description: &'static str, content: Content) -> Self {
        Self {
            status,
            description,
            content,
            headers: &[],
        }
    }

    pub(super) const fn json(schema: &'static str, description: &'static str) -> Self {
        Self::new(200, description, Content::Json(schema))
    }

    pub(super) const fn list(schema: &'static str, description: &'static str) -> Self {
        Self::new(200, description, Content::List(schema))
    }

    /// 204.
    pub(super) const fn done(description: &'static str) -> Self {
        Self::new(204, description, Content::Nothing)
    }

    pub(super) const fn with(mut self, headers: &'static [(&'static str, &'static str)]) -> Self {
        self.headers = headers;
        self
    }
}

impl Parameter {
    pub(super) const fn path(key: &'static str, name: &'static str, description: &'static str) -> Self {
        Self::new(key, name, Place::Path, description)
    }

    pub(super) const fn query(key: &'static str, name: &'static str, description: &'static str) -> Self {
        Self::new(key, name, Place::Query, description)
    }

    pub(super) const fn header(key: &'static str, name: &'static str, description: &'static str) -> Self {
        Self::new(key, name, Place::Header, description)
    }

    const fn new(key: &'static str, name: &'static str, place: Place, description: &'static str) -> Self {
        Self {
            key,
            name,
            place,
            description,
            kind: Kind::Text(0),
            example: "",
        }
    }

    pub(super) const fn of(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub(super) const fn such_as(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }
}
