//! What each target takes of JSON Schema.

/// A dialect.
#[derive(Debug)]
pub struct Target {
    /// Keywords about numbers, texts and lists that are taken as they are.
    pub keywords: &'static [&'static str],
    /// Formats of texts; `None`: all.
    pub formats: Option<&'static [&'static str]>,
    /// The most that `minItems` may be.
    pub most_min_items: Option<u64>,
    /// Objects have the members that are named, and no others.
    pub closed: bool,
    /// All members are required.
    pub all_required: bool,
    /// A schema may be within itself.
    pub recursive: bool,
    /// What a value is may be left open.
    pub open_values: bool,
    /// `type` may be a list.
    pub type_lists: bool,
    pub consts: bool,
    /// `enum` may hold truth values and null.
    pub any_enum: bool,
    pub tuples: bool,
    /// `$ref` may have a description beside it.
    pub described_refs: bool,
    /// The schema itself must be of an object, and have no alternatives.
    pub object_root: bool,
}

/// Anthropic's structured outputs (platform.claude.com, "Structured outputs", "JSON Schema
/// limitations").
pub const ANTHROPIC: Target = Target {
    keywords: &["default"],
    formats: Some(&[
        "date-time",
        "time",
        "date",
        "duration",
        "email",
        "hostname",
        "uri",
        "ipv4",
        "ipv6",
        "uuid",
    ]),
    most_min_items: Some(1),
    closed: true,
    all_required: false,
    recursive: false,
    open_values: false,
    type_lists: false,
    consts: true,
    any_enum: true,
    tuples: false,
    described_refs: false,
    object_root: false,
};

/// OpenAI's strict mode (platform.openai.com, guide "Structured outputs", "Supported schemas").
pub const OPENAI_STRICT: Target = Target {
    keywords: &[
        "pattern",
        "multipleOf",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minItems",
        "maxItems",
    ],
    formats: Some(&[
        "date-time",
        "time",
        "date",
        "duration",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "uuid",
    ]),
    most_min_items: None,
    closed: true,
    all_required: true,
    recursive: true,
    open_values: false,
    type_lists: true,
    consts: true,
    any_enum: true,
    tuples: false,
    described_refs: true,
    object_root: true,
};

/// Gemini's `responseJsonSchema` and `parametersJsonSchema` (reference of `GenerationConfig`: the
/// listed properties, `$ref` without others beside it).
pub const GEMINI: Target = Target {
    keywords: &["minimum", "maximum", "minItems", "maxItems"],
    formats: None,
    most_min_items: None,
    closed: false,
    all_required: false,
    recursive: true,
    open_values: true,
    type_lists: true,
    consts: false,
    any_enum: false,
    tuples: true,
    described_refs: false,
    object_root: false,
};
