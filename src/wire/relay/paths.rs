//! Which paths are passed on, and what is known of each.

use http::Method;

use crate::auth::Use;

/// What a path is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// An answer of a model, of which the provider keeps nothing: a use of models.
    Model(Use),
    /// What the provider keeps for its account.
    Account,
    /// Anything, at the provider that the path names.
    Anything,
}

/// A path that is passed on.
#[derive(Debug)]
pub struct Relayed {
    pub pattern: &'static str,
    pub methods: &'static [Method],
    pub about: About,
    pub summary: &'static str,
}

const POST: &[Method] = &[Method::POST];
const READ_WRITE: &[Method] = &[Method::GET, Method::POST];
const ALL: &[Method] = &[
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

const fn of(
    pattern: &'static str,
    methods: &'static [Method],
    about: About,
    summary: &'static str,
) -> Relayed {
    Relayed {
        pattern,
        methods,
        about,
        summary,
    }
}

/// Names the provider where the model does not.
pub const PROVIDER: &str = "x-smithgate-provider";
/// Its operations in the document.
pub const TAG: &str = "relay";

/// All of them (<https://platform.openai.com/docs/api-reference>).
pub const PATHS: &[Relayed] = &[
    of(
        "/v1/completions",
        POST,
        About::Model(Use::Completions),
        "Completes a text.",
    ),
    of(
        "/v1/moderations",
        POST,
        About::Model(Use::Moderations),
        "Classifies texts and images.",
    ),
    of(
        "/v1/images/generations",
        POST,
        About::Model(Use::Images),
        "Makes images.",
    ),
    of(
        "/v1/images/edits",
        POST,
        About::Model(Use::Images),
        "Changes images.",
    ),
    of(
        "/v1/images/variations",
        POST,
        About::Model(Use::Images),
        "Makes variations of an image.",
    ),
    of(
        "/v1/audio/speech",
        POST,
        About::Model(Use::Audio),
        "Speaks a text.",
    ),
    of(
        "/v1/audio/transcriptions",
        POST,
        About::Model(Use::Audio),
        "Writes down what is said.",
    ),
    of(
        "/v1/audio/translations",
        POST,
        About::Model(Use::Audio),
        "Writes down what is said, in English.",
    ),
    of(
        "/v1/rerank",
        POST,
        About::Model(Use::Rerank),
        "Orders documents by a query.",
    ),
    of(
        "/v1/responses/input_tokens",
        POST,
        About::Model(Use::Responses),
        "Counts the tokens of a request.",
    ),
    of(
        "/v1/batches",
        READ_WRITE,
        About::Account,
        "Batches at the provider.",
    ),
    of(
        "/v1/batches/{*path}",
        READ_WRITE,
        About::Account,
        "A batch at the provider.",
    ),
    of(
        "/v1/uploads",
        POST,
        About::Account,
        "Begins an upload to the provider.",
    ),
    of(
        "/v1/uploads/{*path}",
        POST,
        About::Account,
        "An upload to the provider.",
    ),
    of(
        "/v1/fine_tuning/{*path}",
        ALL,
        About::Account,
        "Fine-tuning at the provider.",
    ),
    of(
        "/v1/passthrough/{provider}/{*path}",
        ALL,
        About::Anything,
        "Any path of a provider, behind its base URL.",
    ),
];
