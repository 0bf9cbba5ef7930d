//! The other wires.

use super::*;
use crate::config::MediaKind::{
    Gif, Heic, Jpeg, Mp3, OtherAudio, Pdf, Png, Text, Video, Wav, Webp,
};
use crate::model::request::Effort::{High, Low, Max, Medium, Minimal, None as Off, XHigh};
use crate::model::rules::{
    Allowed, CallIds, Dialect, Efforts, Entry, MediaKinds, Patch, Structured, Thinking,
};

pub(super) static ENTRIES: &[Entry] = &[
    // ---- Anthropic ----
    // Roles alternate, the user begins; ids match ^[a-zA-Z0-9_-]+$ (report: BifrostHTTP#5097),
    // tools' names ^[a-zA-Z0-9_-]{1,64}$; `temperature` goes to 1 (API reference, "Messages").
    // Models that are not Claude's (compatible endpoints) think by budget.
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &[],
        says: Patch {
            one_sampler: Some(true),
            max_temperature: Some(1.0),
            thinking: Some(Thinking::Budget),
            min_thinking_tokens: Some(1_024),
            call_ids: Some(CallIds::Word),
            repeats_roles: Some(false),
            user_first: Some(true),
            declares_past_tools: Some(true),
            tool_schema: Some(Dialect::Anthropic),
            output_schema: Some(Dialect::Anthropic),
            // JPEG, PNG, GIF and WebP ("Images and vision"), PDF and plain text ("PDF support",
            // "Files API"); of documents by URL only PDF.
            media: Some(MediaKinds::of(&[Png, Jpeg, Gif, Webp, Pdf, Text])),
            text_urls: Some(false),
            ..Patch::NONE
        },
    },
    // "image exceeds 10 MB maximum: 11174516 bytes > 10485760 bytes", counted in base64; elsewhere
    // other limits hold (platform.claude.com, "Images and vision").
    Entry {
        wires: CLAUDE,
        hosts: &["api.anthropic.com"],
        models: &[],
        says: Patch {
            max_image_base64: Some(10_485_760),
            ..Patch::NONE
        },
    },
    // What came before Claude 3 sees nothing.
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &["claude-2*", "claude-instant*"],
        says: Patch {
            media: Some(MediaKinds::of(&[])),
            ..Patch::NONE
        },
    },
    // Claude from 5.5 on, and what is not known yet: no sampling, no assistant at the end
    // (openrouter.ai, "claude-5-5" migration guide), always adaptive thinking, no forced tools
    // (platform.claude.com, "What's new in Claude Opus 5.5").
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &["claude-*"],
        says: Patch {
            sampling: Some(Allowed::Never),
            thinking: Some(Thinking::AdaptiveAlways),
            efforts: Some(Efforts::of(&[Low, Medium, High, XHigh, Max])),
            forced_tools: Some(false),
            prefill: Some(false),
            max_output_tokens: Some(128_000),
            ..Patch::NONE
        },
    },
    // "Turn off up-front thinking with between_tools" (platform.claude.com, "What's new in Claude
    // Sonnet 5.5").
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &["claude-sonnet-5-5*", "claude-haiku-5-5*"],
        says: Patch {
            thinking: Some(Thinking::AdaptiveBetweenTools),
            ..Patch::NONE
        },
    },
    // Claude 5: thinking is on by default and can be disabled (platform.claude.com, "Sonnet 5
    // migration guide"); forced tools are taken without it.
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &[
            "claude-opus-5",
            "claude-opus-5-2*",
            "claude-sonnet-5",
            "claude-sonnet-5-2*",
        ],
        says: Patch {
            thinking: Some(Thinking::AdaptiveByDefault),
            forced_tools: Some(true),
            ..Patch::NONE
        },
    },
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &["claude-fable-5", "claude-mythos*"],
        says: Patch {
            forced_tools: Some(true),
            ..Patch::NONE
        },
    },
    // 4.6 to 4.8: adaptive thinking that is off unless asked for; no assistant at the end from 4.6
    // on ("Prefilling assistant messages returns a 400 error on Claude 4.6 models"); sampling and
    // budgets refused from 4.7 on; `xhigh` from 4.7 on (platform.claude.com, "Migration guide",
    // "Effort").
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &[
            "claude-*-4-6*",
            "claude-*-4-7*",
            "claude-*-4-8*",
            "claude-*-4-9*",
        ],
        says: Patch {
            thinking: Some(Thinking::Adaptive),
            forced_tools: Some(true),
            ..Patch::NONE
        },
    },
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &["claude-*-4-6*"],
        says: Patch {
            sampling: Some(Allowed::Always),
            efforts: Some(Efforts::of(&[Low, Medium, High, Max])),
            ..Patch::NONE
        },
    },
    // 4.5 and before think by budget; structured outputs begin with 4.5 and Opus 4.1
    // (platform.claude.com, "Structured outputs"); most output tokens by "Models overview".
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &[
            "claude-*-4-5*",
            "claude-*-4-1*",
            "claude-*-4-0*",
            "claude-*-4",
            "claude-*-4-2025*",
            "claude-4-*",
            "claude-3*",
            "claude-2*",
            "claude-instant*",
        ],
        says: Patch {
            sampling: Some(Allowed::Always),
            thinking: Some(Thinking::Budget),
            efforts: Some(Efforts::of(&[Low, Medium, High, XHigh, Max])),
            forced_tools: Some(true),
            prefill: Some(true),
            max_output_tokens: Some(64_000),
            ..Patch::NONE
        },
    },
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &[
            "claude-opus-4",
            "claude-opus-4-0*",
            "claude-opus-4-1*",
            "claude-opus-4-2025*",
        ],
        says: Patch {
            max_output_tokens: Some(32_000),
            ..Patch::NONE
        },
    },
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &[
            "claude-*-4",
            "claude-*-4-0*",
            "claude-*-4-2025*",
            "claude-4-*",
            "claude-3*",
            "claude-2*",
            "claude-instant*",
        ],
        says: Patch {
            structured: Some(Structured::Tool),
            ..Patch::NONE
        },
    },
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &[
            "claude-3-5*",
            "claude-3-opus*",
            "claude-3-haiku*",
            "claude-3-sonnet*",
            "claude-2*",
            "claude-instant*",
        ],
        says: Patch {
            thinking: Some(Thinking::None),
            max_output_tokens: Some(8_192),
            ..Patch::NONE
        },
    },
    Entry {
        wires: CLAUDE,
        hosts: &[],
        models: &[
            "claude-3-opus*",
            "claude-3-haiku*",
            "claude-3-sonnet*",
            "claude-2*",
            "claude-instant*",
        ],
        says: Patch {
            max_output_tokens: Some(4_096),
            default_max_tokens: Some(4_096),
            ..Patch::NONE
        },
    },
    // ---- Gemini ----
    // Calls come right behind a user's turn, results right behind their calls and as many as they
    // ("Please ensure that the number of function response parts is equal to the number of function
    // call parts", google-gemini/gemini-cli#3814; #26486); names of functions have at most 64
    // characters; levels of thinking by model (docs.cloud.google.com, "Thinking").
    Entry {
        wires: GOOGLE,
        hosts: &[],
        models: &[],
        says: Patch {
            repeats_roles: Some(false),
            user_first: Some(true),
            thinking: Some(Thinking::Adaptive),
            efforts: Some(Efforts::of(&[Low, Medium, High])),
            tool_schema: Some(Dialect::Gemini),
            output_schema: Some(Dialect::Gemini),
            // PNG, JPEG, WebP, HEIC and HEIF, PDF, sounds and videos (ai.google.dev, "Image
            // understanding", "Audio", "Video", "Document understanding"); GIF is refused
            // (discuss.ai.google.dev/t/71468), and "text should not be sent as raw bytes" (`Blob`).
            media: Some(MediaKinds::of(&[
                Png, Jpeg, Webp, Heic, Pdf, Wav, Mp3, OtherAudio, Video,
            ])),
            ..Patch::NONE
        },
    },
    Entry {
        wires: GOOGLE,
        hosts: &[],
        models: &["gemini-3*-flash*"],
        says: Patch {
            efforts: Some(Efforts::of(&[Minimal, Low, Medium, High])),
            ..Patch::NONE
        },
    },
    Entry {
        wires: GOOGLE,
        hosts: &[],
        models: &["gemini-3-7-flash*", "gemini-3-8-flash*"],
        says: Patch {
            efforts: Some(Efforts::of(&[Low, Medium, High])),
            ..Patch::NONE
        },
    },
    Entry {
        wires: GOOGLE,
        hosts: &[],
        models: &["gemini-3-pro*"],
        says: Patch {
            efforts: Some(Efforts::of(&[Low, High])),
            ..Patch::NONE
        },
    },
    // 2.5 counts tokens: flash to 24,576, pro from 128 to 32,768 (ai.google.dev, "Thinking"); what
    // came before does not think.
    Entry {
        wires: GOOGLE,
        hosts: &[],
        models: &["gemini-2*", "gemini-1*"],
        says: Patch {
            thinking: Some(Thinking::Budget),
            efforts: Some(Efforts::of(&[Off, Minimal, Low, Medium, High, XHigh, Max])),
            max_thinking_tokens: Some(24_576),
            ..Patch::NONE
        },
    },
    Entry {
        wires: GOOGLE,
        hosts: &[],
        models: &["gemini-2-5-pro*"],
        says: Patch {
            min_thinking_tokens: Some(128),
            max_thinking_tokens: Some(32_768),
            ..Patch::NONE
        },
    },
    Entry {
        wires: GOOGLE,
        hosts: &[],
        models: &["gemini-1*", "gemini-2-0*"],
        says: Patch {
            thinking: Some(Thinking::None),
            ..Patch::NONE
        },
    },
];
