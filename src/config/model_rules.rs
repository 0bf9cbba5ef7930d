//! The words in which it is said what a model takes: of the table that is built in
//! (`model::rules`), and of a provider's `rules`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How hard the model should think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

impl Effort {
    /// OpenAI's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// Thinking tokens for providers that count instead; 0 is none.
    pub fn budget_tokens(self) -> u32 {
        match self {
            Self::None | Self::Minimal => 0,
            Self::Low => 2_048,
            Self::Medium => 8_192,
            Self::High => 16_384,
            Self::XHigh | Self::Max => 32_768,
        }
    }
}

impl std::str::FromStr for Effort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "none" => Self::None,
            "minimal" => Self::Minimal,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "xhigh" => Self::XHigh,
            "max" => Self::Max,
            _ => return Err(()),
        })
    }
}

/// From the least to the most.
const ALL: [Effort; 7] = [
    Effort::None,
    Effort::Minimal,
    Effort::Low,
    Effort::Medium,
    Effort::High,
    Effort::XHigh,
    Effort::Max,
];

/// Some of the efforts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Efforts(u8);

impl Efforts {
    /// These.
    pub const fn of(efforts: &[Effort]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < efforts.len() {
            bits |= 1 << efforts[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    fn has(self, effort: Effort) -> bool {
        self.0 & (1 << effort as u8) != 0
    }

    /// The effort itself, else the next lower one, else the next higher one. `none` is no
    /// substitute: whoever asks for some reasoning gets some.
    pub fn nearest(self, asked: Effort) -> Option<Effort> {
        if self.has(asked) {
            return Some(asked);
        }
        let at = asked as usize;
        let lower = ALL[..at].iter().rev().filter(|e| **e != Effort::None);
        let higher = ALL[at..].iter();
        lower.chain(higher).copied().find(|e| self.has(*e))
    }
}

impl Serialize for Efforts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ALL.iter().filter(|e| self.has(**e)).map(|e| e.as_str()))
    }
}

impl<'de> Deserialize<'de> for Efforts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        let mut bits = 0;
        for name in names {
            let effort: Effort = name
                .parse()
                .map_err(|()| serde::de::Error::custom(format!("no effort '{name}'")))?;
            bits |= 1 << effort as u8;
        }
        Ok(Self(bits))
    }
}

/// What an image, a file or a sound is, as far as models tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    Png,
    Jpeg,
    Gif,
    Webp,
    Heic,
    OtherImage,
    Pdf,
    /// What is read as text: sources, data, markup.
    Text,
    /// Documents, sheets and slides of office suites.
    Office,
    Wav,
    Mp3,
    OtherAudio,
    Video,
    Other,
}

/// With their names in the configuration and to people.
const KINDS: [(MediaKind, &str, &str); 14] = [
    (MediaKind::Png, "png", "PNG"),
    (MediaKind::Jpeg, "jpeg", "JPEG"),
    (MediaKind::Gif, "gif", "GIF"),
    (MediaKind::Webp, "webp", "WebP"),
    (MediaKind::Heic, "heic", "HEIC"),
    (MediaKind::OtherImage, "image", "other images"),
    (MediaKind::Pdf, "pdf", "PDF"),
    (MediaKind::Text, "text", "files of text"),
    (MediaKind::Office, "office", "office documents"),
    (MediaKind::Wav, "wav", "WAV"),
    (MediaKind::Mp3, "mp3", "MP3"),
    (MediaKind::OtherAudio, "audio", "other sounds"),
    (MediaKind::Video, "video", "videos"),
    (MediaKind::Other, "file", "other files"),
];

/// Types that are text, though their name does not begin with it.
const TEXTS: [&str; 14] = [
    "application/json",
    "application/xml",
    "application/yaml",
    "application/x-yaml",
    "application/toml",
    "application/javascript",
    "application/x-javascript",
    "application/typescript",
    "application/x-python",
    "application/x-sh",
    "application/sql",
    "application/graphql",
    "application/x-ndjson",
    "application/x-httpd-php",
];

impl MediaKind {
    /// Of a media type without parameters, in lower case.
    pub fn of(media_type: &str) -> Self {
        match media_type {
            "image/png" => Self::Png,
            "image/jpeg" | "image/jpg" => Self::Jpeg,
            "image/gif" => Self::Gif,
            "image/webp" => Self::Webp,
            "image/heic" | "image/heif" => Self::Heic,
            "application/pdf" | "application/x-pdf" => Self::Pdf,
            "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => Self::Wav,
            "audio/mp3" | "audio/mpeg" | "audio/mpeg3" => Self::Mp3,
            other if other.starts_with("image/") => Self::OtherImage,
            other if other.starts_with("audio/") => Self::OtherAudio,
            other if other.starts_with("video/") => Self::Video,
            other if other.starts_with("text/") || TEXTS.contains(&other) => Self::Text,
            other if other.ends_with("+json") || other.ends_with("+xml") => Self::Text,
            other
                if other.starts_with("application/vnd.openxmlformats-")
                    || other.starts_with("application/vnd.oasis.opendocument")
                    || other.starts_with("application/vnd.ms-")
                    || other == "application/msword"
                    || other == "application/rtf" =>
            {
                Self::Office
            }
            _ => Self::Other,
        }
    }

    /// Whether it is an image.
    pub fn is_image(self) -> bool {
        self as u8 <= Self::OtherImage as u8
    }

    /// The format's name on OpenAI's Chat Completions, where it has one.
    pub fn audio_format(self) -> Option<&'static str> {
        match self {
            Self::Wav => Some("wav"),
            Self::Mp3 => Some("mp3"),
            _ => None,
        }
    }
}

/// Some of the kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaKinds(u16);

impl MediaKinds {
    /// All of them.
    pub const ALL: Self = Self(u16::MAX);

    /// These.
    pub const fn of(kinds: &[MediaKind]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < kinds.len() {
            bits |= 1 << kinds[at] as u16;
            at += 1;
        }
        Self(bits)
    }

    /// All others.
    pub const fn all_but(kinds: &[MediaKind]) -> Self {
        Self(!Self::of(kinds).0)
    }

    /// Whether `kind` is one of them.
    pub fn has(self, kind: MediaKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    fn each(self) -> impl Iterator<Item = &'static (MediaKind, &'static str, &'static str)> {
        KINDS.iter().filter(move |(kind, ..)| self.has(*kind))
    }

    /// As people are told.
    pub fn in_words(self) -> String {
        let words: Vec<&str> = self.each().map(|(_, _, words)| *words).collect();
        match words.is_empty() {
            true => "text alone".to_owned(),
            false => words.join(", "),
        }
    }
}

impl Serialize for MediaKinds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.each().map(|(_, name, _)| *name))
    }
}

impl<'de> Deserialize<'de> for MediaKinds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut bits = 0;
        for name in Vec::<String>::deserialize(from)? {
            let known = KINDS.iter().find(|(_, known, _)| *known == name);
            let (kind, ..) = known
                .ok_or_else(|| serde::de::Error::custom(format!("no kind of media '{name}'")))?;
            bits |= Self::of(&[*kind]).0;
        }
        Ok(Self(bits))
    }
}

/// When a parameter may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowed {
    Always,
    /// Only in calls for which the model does not reason.
    WithoutReasoning,
    Never,
}

/// How a model is told to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thinking {
    /// It does not think, and refuses to be told to.
    None,
    /// By a number of tokens.
    Budget,
    /// By an effort or level; it does not think unless it is told to.
    Adaptive,
    /// By an effort; it thinks unless thinking is turned off.
    AdaptiveByDefault,
    /// By an effort; the least is thinking between tools alone.
    AdaptiveBetweenTools,
    /// By an effort; it always thinks.
    AdaptiveAlways,
}

impl Thinking {
    /// Whether the model chooses by itself how much it thinks.
    pub fn is_adaptive(self) -> bool {
        !matches!(self, Self::None | Self::Budget)
    }
}

/// How a model is held to a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Structured {
    /// By the wire's own member.
    Native,
    /// By a tool that it must call.
    Tool,
    /// By the wire's JSON mode, with the schema in the instructions.
    JsonMode,
    /// By the instructions alone.
    Prompt,
}

/// The name of the limit of an answer's tokens on OpenAI's Chat Completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    MaxTokens,
    MaxCompletionTokens,
}

impl LimitName {
    /// As the wire spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// Which ids of tool calls are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallIds {
    Any,
    /// At most 40 characters.
    Short,
    /// At most 64 of `[a-zA-Z0-9_-]`.
    Word,
    /// Nine of `[a-zA-Z0-9]`.
    Nine,
}

/// Who speaks the instructions on OpenAI's Chat Completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemRole {
    System,
    Developer,
    User,
}

/// When an answer's reasoning goes back on OpenAI's Chat Completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// The provider refuses it.
    Never,
    /// Beside tool calls, to the provider that wrote it.
    WithTools,
    /// Beside tool calls, where a call without reasoning is refused: such a call gets an empty one.
    Required,
    /// In every turn of the provider's.
    Always,
}

/// The dialect of JSON Schema that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Sent as the caller wrote it.
    Plain,
    Openai,
    Anthropic,
    Gemini,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $default:expr,)*) => {
        /// What is known of a model at a provider.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct Rules {
            $($(#[$doc])* pub $name: $kind,)*
        }

        /// What an entry says; what it leaves out stays as it was.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Patch {
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$kind>,
            )*
        }

        impl Patch {
            /// Says nothing.
            pub const NONE: Self = Self { $($name: None,)* };
        }

        impl Default for Rules {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Rules {
            /// Takes in what `patch` says.
            pub fn apply(&mut self, patch: &Patch) {
                $(if let Some(value) = patch.$name {
                    self.$name = value;
                })*
            }
        }
    };
}

rules! {
    /// `temperature` and `top_p`.
    sampling: Allowed = Allowed::Always,
    /// Of `temperature` and `top_p` only one.
    one_sampler: bool = false,
    /// A higher `temperature` is lowered to this.
    max_temperature: f64 = 2.0,
    /// `presence_penalty`, `frequency_penalty`, `logit_bias`.
    penalties: Allowed = Allowed::Always,
    /// Stop sequences.
    stop: Allowed = Allowed::Always,
    /// Whether a call that names no effort is answered with reasoning.
    reasons_by_default: bool = false,
    /// How it is told to think.
    thinking: Thinking = Thinking::Adaptive,
    /// The efforts that it takes; none: it refuses the parameter.
    efforts: Efforts = Efforts::of(&[
        Effort::None, Effort::Minimal, Effort::Low, Effort::Medium, Effort::High, Effort::XHigh,
    ]),
    /// The least and the most tokens of a thinking budget.
    min_thinking_tokens: u32 = 0,
    max_thinking_tokens: u32 = 32_768,
    /// How it is held to a schema.
    structured: Structured = Structured::Native,
    /// The name of the limit of an answer's tokens.
    limit_name: LimitName = LimitName::MaxCompletionTokens,
    /// The limit that is sent when the caller sets none, on wires that demand one.
    default_max_tokens: u32 = 8_192,
    /// The most tokens that an answer may have; a higher limit is lowered to this.
    max_output_tokens: u32 = u32::MAX,
    /// Ids of tool calls.
    call_ids: CallIds = CallIds::Any,
    /// The longest name of a tool.
    tool_name_chars: u32 = 64,
    /// Whether a call may be forced (`required`, or a tool's name).
    forced_tools: bool = true,
    /// Whether `parallel_tool_calls` may be sent.
    parallel_tool_calls: bool = true,
    /// Whether tools and reasoning go together.
    tools_with_reasoning: bool = true,
    /// Whether tools must be declared when only the history has calls.
    declares_past_tools: bool = false,
    /// Who speaks the instructions.
    system_role: SystemRole = SystemRole::System,
    /// Whether the assistant may have the last word, to go on from there.
    prefill: bool = true,
    /// Whether one speaker may have two turns in a row.
    repeats_roles: bool = true,
    /// Whether the user may speak right behind a tool's result.
    user_after_tool: bool = true,
    /// Whether the user must speak first.
    user_first: bool = false,
    /// When reasoning goes back.
    replay: Replay = Replay::WithTools,
    /// Whether the seed is called `random_seed`.
    random_seed: bool = false,
    /// Whether what only OpenAI knows may be sent: `user`, `verbosity`, `service_tier`,
    /// `prompt_cache_key`, `reasoning_effort` for models without one.
    extras: bool = true,
    /// Whether its reasoning and calls may be in the text, between tags, where the server before it
    /// does not take them apart (OpenAI's Chat Completions).
    tags: bool = true,
    /// What it takes beside text: images, files, sounds.
    media: MediaKinds = MediaKinds::ALL,
    /// The most characters of an image in base64.
    max_image_base64: u32 = u32::MAX,
    /// Whether it fetches files from URLs, and those of text.
    file_urls: bool = true,
    text_urls: bool = true,
    /// Whether an image may be named by its id at the provider.
    image_ids: bool = true,
    /// The dialect of tools' schemas.
    tool_schema: Dialect = Dialect::Openai,
    /// The dialect of an answer's schema.
    output_schema: Dialect = Dialect::Openai,
}

/// What the operator says of models of a provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRule {
    /// Models by name; `*` stands for any text. Empty: all of the provider's.
    #[serde(default)]
    pub models: Vec<String>,
    pub set: Patch,
}
