//! The table. Later entries win. Each names the public documentation or report that it is from,
//! as read in November 2026; what is not known here is what the wire's first entry says.

use super::{
    Allowed, CallIds, Dialect, Efforts, Entry, LimitName, MediaKinds, Patch, Replay, Structured,
    SystemRole, Thinking,
};
use crate::config::MediaKind::{
    Gif, Heic, Jpeg, Mp3, Office, OtherAudio, Pdf, Png, Text, Video, Wav, Webp,
};
use crate::config::ProviderWire::{self, Anthropic, Gemini, OpenaiChat, OpenaiResponses};
use crate::model::request::Effort::{High, Low, Max, Medium, Minimal, None as Off, XHigh};

const CHAT: &[ProviderWire] = &[OpenaiChat];
const RESPONSES: &[ProviderWire] = &[OpenaiResponses];
const OPENAI: &[ProviderWire] = &[OpenaiChat, OpenaiResponses];
const CLAUDE: &[ProviderWire] = &[Anthropic];
const GOOGLE: &[ProviderWire] = &[Gemini];
/// OpenAI's own hosts, and those of its models at Azure.
const OPENAI_HOSTS: &[&str] = &[
    "api.openai.com",
    "openai.azure.com",
    "cognitiveservices.azure.com",
];
const MISTRAL_HOSTS: &[&str] = &["mistral.ai"];
const DEEPSEEK_HOSTS: &[&str] = &["deepseek.com"];

const NO_SAMPLING: Patch = Patch {
    sampling: Some(Allowed::Never),
    penalties: Some(Allowed::Never),
    stop: Some(Allowed::Never),
    reasons_by_default: Some(true),
    ..Patch::NONE
};

pub(super) static TABLE: &[Entry] = &[
    // ---- OpenAI Chat Completions, and everything that speaks it ----
    // Ids of calls have at most 40 characters there ("string too long. Expected a string with
    // maximum length 40", camel-ai/camel#2215), 64 on Responses (RooCodeInc/Roo-Code#10763); names
    // of tools match ^[a-zA-Z0-9_-]{1,64}$ (API reference, "Chat", tools.function.name).
    Entry {
        wires: CHAT,
        hosts: &[],
        models: &[],
        says: Patch {
            call_ids: Some(CallIds::Short),
            // "Chat Completions accepts only PDF files as file content parts", and none by URL
            // (developers.openai.com, "File inputs"); what is text is read by every model.
            media: Some(MediaKinds::all_but(&[Text])),
            file_urls: Some(false),
            image_ids: Some(false),
            ..Patch::NONE
        },
    },
    Entry {
        wires: RESPONSES,
        hosts: &[],
        models: &[],
        says: Patch {
            call_ids: Some(CallIds::Word),
            ..Patch::NONE
        },
    },
    // Images are PNG, JPEG, WebP and GIF (guide "Images and vision"), sounds WAV and MP3 ("Audio");
    // files are PDF on Chat Completions, and documents, sheets, slides and text on Responses, which
    // takes no sounds (guide "File inputs").
    Entry {
        wires: CHAT,
        hosts: OPENAI_HOSTS,
        models: &[],
        says: Patch {
            media: Some(MediaKinds::of(&[Png, Jpeg, Gif, Webp, Pdf, Wav, Mp3])),
            ..Patch::NONE
        },
    },
    Entry {
        wires: RESPONSES,
        hosts: &[],
        models: &[],
        says: Patch {
            media: Some(MediaKinds::of(&[Png, Jpeg, Gif, Webp, Pdf, Text, Office])),
            ..Patch::NONE
        },
    },
    // Models without vision (pages of each model).
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &[
            "gpt-3*",
            "gpt-4",
            "gpt-4-0*",
            "gpt-4-1106*",
            "o1-mini*",
            "o1-preview*",
            "o3-mini*",
        ],
        says: Patch {
            media: Some(MediaKinds::of(&[])),
            ..Patch::NONE
        },
    },
    // Unknown members of messages are refused ("Additional properties are not allowed"). What is in
    // tags is text there, whatever it is (BerriAI/litellm#10702).
    Entry {
        wires: CHAT,
        hosts: OPENAI_HOSTS,
        models: &[],
        says: Patch {
            replay: Some(Replay::Never),
            tags: Some(false),
            ..Patch::NONE
        },
    },
    // Models before the reasoning ones do not know `reasoning_effort` (API reference, "Chat").
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["gpt-3*", "gpt-4*", "chatgpt-4*", "gpt-5-chat*"],
        says: Patch {
            efforts: Some(Efforts::of(&[])),
            ..Patch::NONE
        },
    },
    // Structured outputs begin with gpt-4o-2024-08-06 (guide "Structured outputs").
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &[
            "gpt-3*",
            "gpt-4",
            "gpt-4-0*",
            "gpt-4-1106*",
            "gpt-4-turbo*",
            "gpt-4o-2024-05-13",
        ],
        says: Patch {
            structured: Some(Structured::JsonMode),
            ..Patch::NONE
        },
    },
    // Reasoning models refuse temperature, top_p, penalties, logit_bias (guide "Reasoning"; the
    // compatibility matrix at community.openai.com/t/1371738) and stop (n8n-io/n8n#18149,
    // langchain-ai/langchain#26433); o-series refuse parallel_tool_calls.
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["o1*", "o3*", "o4*", "gpt-5", "gpt-5-*"],
        says: NO_SAMPLING,
    },
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["o1*", "o3*", "o4*"],
        says: Patch {
            efforts: Some(Efforts::of(&[Low, Medium, High])),
            parallel_tool_calls: Some(false),
            ..Patch::NONE
        },
    },
    // The first previews know neither instructions nor efforts nor schemas.
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["o1-mini*", "o1-preview*"],
        says: Patch {
            efforts: Some(Efforts::of(&[])),
            system_role: Some(SystemRole::User),
            structured: Some(Structured::Prompt),
            ..Patch::NONE
        },
    },
    // Efforts by model: community.openai.com/t/1371738, confirmed by the pages of each model.
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["gpt-5", "gpt-5-20*", "gpt-5-mini*", "gpt-5-nano*"],
        says: Patch {
            efforts: Some(Efforts::of(&[Minimal, Low, Medium, High])),
            ..Patch::NONE
        },
    },
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["gpt-5-1", "gpt-5-1-*"],
        says: Patch {
            efforts: Some(Efforts::of(&[Off, Low, Medium, High])),
            reasons_by_default: Some(false),
            ..Patch::NONE
        },
    },
    // From 5.2 on sampling is taken with effort `none` (guide "Using GPT-5.2"), stop too
    // (BerriAI/litellm#28662).
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &[
            "gpt-5-2",
            "gpt-5-2-*",
            "gpt-5-3*",
            "gpt-5-4*",
            "gpt-5-5*",
            "gpt-5-6*",
            "gpt-5-7*",
            "gpt-5-8*",
            "gpt-5-9*",
            "gpt-6*",
        ],
        says: Patch {
            efforts: Some(Efforts::of(&[Off, Low, Medium, High, XHigh])),
            sampling: Some(Allowed::WithoutReasoning),
            penalties: Some(Allowed::WithoutReasoning),
            stop: Some(Allowed::WithoutReasoning),
            reasons_by_default: Some(true),
            ..Patch::NONE
        },
    },
    // 5.2 to 5.4 do not reason unless they are told to (guide "Using GPT-5.2").
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["gpt-5-2", "gpt-5-2-*", "gpt-5-3*", "gpt-5-4*"],
        says: Patch {
            reasons_by_default: Some(false),
            ..Patch::NONE
        },
    },
    // "Function tools with reasoning_effort are not supported for gpt-5.4 in
    // /v1/chat/completions" (openai/openai-openapi#541), 5.5 and 5.6 even where none is named
    // (danny-avila/LibreChat#14355).
    Entry {
        wires: CHAT,
        hosts: OPENAI_HOSTS,
        models: &[
            "gpt-5-4*", "gpt-5-5*", "gpt-5-6*", "gpt-5-7*", "gpt-5-8*", "gpt-5-9*", "gpt-6*",
        ],
        says: Patch {
            tools_with_reasoning: Some(false),
            ..Patch::NONE
        },
    },
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["gpt-5*-codex*"],
        says: Patch {
            efforts: Some(Efforts::of(&[Low, Medium, High])),
            ..NO_SAMPLING
        },
    },
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["gpt-5-1-codex-max*", "gpt-5-2-codex*", "gpt-5-3-codex*"],
        says: Patch {
            efforts: Some(Efforts::of(&[Low, Medium, High, XHigh])),
            ..Patch::NONE
        },
    },
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["gpt-5-pro*"],
        says: Patch {
            efforts: Some(Efforts::of(&[High])),
            ..Patch::NONE
        },
    },
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["gpt-5-*-pro*"],
        says: Patch {
            efforts: Some(Efforts::of(&[Medium, High, XHigh])),
            ..NO_SAMPLING
        },
    },
    // ChatGPT's models: 5 is no reasoning model and samples, later ones have one effort.
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["gpt-5-chat*"],
        says: Patch {
            sampling: Some(Allowed::Always),
            penalties: Some(Allowed::Always),
            stop: Some(Allowed::Always),
            reasons_by_default: Some(false),
            ..Patch::NONE
        },
    },
    Entry {
        wires: OPENAI,
        hosts: &[],
        models: &["gpt-5-*-chat*"],
        says: Patch {
            efforts: Some(Efforts::of(&[Medium])),
            ..NO_SAMPLING
        },
    },
    // xAI: "presencePenalty, frequencyPenalty and stop parameters are not supported by reasoning
    // models"; only grok-3-mini takes an effort (docs.x.ai, "Reasoning").
    Entry {
        wires: CHAT,
        hosts: &[],
        models: &["grok-4*", "grok-3-mini*", "grok-code*"],
        says: Patch {
            penalties: Some(Allowed::Never),
            stop: Some(Allowed::Never),
            efforts: Some(Efforts::of(&[])),
            reasons_by_default: Some(true),
            ..Patch::NONE
        },
    },
    Entry {
        wires: CHAT,
        hosts: &[],
        models: &["grok-3-mini*"],
        says: Patch {
            efforts: Some(Efforts::of(&[Low, High])),
            ..Patch::NONE
        },
    },
    // Hosts that know `max_tokens` alone, or ignore the newer name: Ollama (ollama/ollama#7125),
    // llama.cpp (lemonade-sdk/lemonade#1044), DeepSeek (langchain-ai/langchain#29954), Mistral
    // (editor-code-assistant/eca#231), and those whose reference has no other name.
    Entry {
        wires: CHAT,
        hosts: &[
            "mistral.ai",
            "deepseek.com",
            "moonshot.ai",
            "moonshot.cn",
            "kimi.ai",
            "kimi.com",
            "z.ai",
            "bigmodel.cn",
            "aliyuncs.com",
            "minimax.io",
            "minimaxi.com",
            "minimax.chat",
            "together.xyz",
            "together.ai",
            "fireworks.ai",
            "perplexity.ai",
            "cohere.com",
            "cohere.ai",
            "siliconflow.cn",
            "siliconflow.com",
            "novita.ai",
            "deepinfra.com",
            "nebius.com",
            "nebius.ai",
            "api.nvidia.com",
            "huggingface.co",
            "ollama.com",
            "localhost:11434",
            "127.0.0.1:11434",
            "ollama:11434",
            "*:11434",
        ],
        models: &[],
        says: Patch {
            limit_name: Some(LimitName::MaxTokens),
            ..Patch::NONE
        },
    },
    Entry {
        wires: CHAT,
        hosts: &[],
        models: &["deepseek*", "kimi*", "moonshot*"],
        says: Patch {
            limit_name: Some(LimitName::MaxTokens),
            ..Patch::NONE
        },
    },
    // Thinking with tools: "The reasoning_content in the thinking mode must be passed back to the
    // API" (api-docs.deepseek.com/guides/thinking_mode), also where it is empty
    // (deepseek-ai/deepseek-harness#739); efforts are low, high and max, others are mapped.
    // Schemas are not enforced, JSON mode is.
    Entry {
        wires: CHAT,
        hosts: &[],
        models: &[
            "deepseek-v3-2*",
            "deepseek-v4*",
            "deepseek-reasoner*",
            "deepseek-chat*",
            "deepseek-flash*",
        ],
        says: Patch {
            replay: Some(Replay::Required),
            ..Patch::NONE
        },
    },
    Entry {
        wires: CHAT,
        hosts: DEEPSEEK_HOSTS,
        models: &[],
        says: Patch {
            replay: Some(Replay::Required),
            structured: Some(Structured::JsonMode),
            efforts: Some(Efforts::of(&[Off, Minimal, Low, Medium, High, XHigh, Max])),
            extras: Some(false),
            // "unknown variant `image_url`, expected `text`" (rikkahub/rikkahub#1433).
            media: Some(MediaKinds::of(&[])),
            ..Patch::NONE
        },
    },
    // Kimi: "thinking is enabled but reasoning_content is missing in assistant tool call message"
    // (MoonshotAI/kimi-cli#2141; platform.kimi.ai, "Use the thinking model"); k2.5 and later have
    // a fixed temperature and no effort.
    Entry {
        wires: CHAT,
        hosts: &[],
        models: &[
            "kimi-k2-thinking*",
            "kimi-k2-5*",
            "kimi-k2-6*",
            "kimi-k2-7*",
            "kimi-k3*",
            "kimi-latest*",
        ],
        says: Patch {
            replay: Some(Replay::Required),
            sampling: Some(Allowed::Never),
            efforts: Some(Efforts::of(&[])),
            ..Patch::NONE
        },
    },
    Entry {
        wires: CHAT,
        hosts: &[
            "moonshot.ai",
            "moonshot.cn",
            "kimi.ai",
            "kimi.com",
            "z.ai",
            "bigmodel.cn",
            "aliyuncs.com",
            "minimax.io",
            "minimaxi.com",
            "minimax.chat",
        ],
        models: &[],
        says: Patch {
            structured: Some(Structured::JsonMode),
            extras: Some(false),
            ..Patch::NONE
        },
    },
    // MiniMax wants all of its reasoning back, in `reasoning_details` (platform.minimax.io, "Tool
    // use & interleaved thinking"); GLM its `reasoning_content` (docs.z.ai, "Thinking mode").
    Entry {
        wires: CHAT,
        hosts: &[],
        models: &["minimax-m*"],
        says: Patch {
            replay: Some(Replay::Always),
            ..Patch::NONE
        },
    },
    // Mistral: ids of calls are nine letters and digits (sst/opencode#1680), no user right behind a
    // tool ("Unexpected role 'user' after role 'tool'", NousResearch/hermes-agent#20154), no
    // assistant at the end without `prefix`, roles that alternate (charmbracelet/crush#279). Its
    // models keep these rules in their templates, wherever they are served.
    Entry {
        wires: CHAT,
        hosts: MISTRAL_HOSTS,
        models: &[],
        says: MISTRAL,
    },
    Entry {
        wires: CHAT,
        hosts: &[],
        models: &[
            "mistral*",
            "ministral*",
            "codestral*",
            "devstral*",
            "magistral*",
            "pixtral*",
            "open-mi*",
            "mixtral*",
        ],
        says: MISTRAL,
    },
    // Unknown members are 422 there ("Extra inputs are not permitted"); the seed has another name
    // (docs.mistral.ai/api).
    Entry {
        wires: CHAT,
        hosts: MISTRAL_HOSTS,
        models: &[],
        says: Patch {
            random_seed: Some(true),
            extras: Some(false),
            replay: Some(Replay::Never),
            efforts: Some(Efforts::of(&[])),
            ..Patch::NONE
        },
    },
    // Groq refuses `reasoning_content` in messages ("property 'reasoning_content' is unsupported").
    Entry {
        wires: CHAT,
        hosts: &["groq.com", "cerebras.ai"],
        models: &[],
        says: Patch {
            replay: Some(Replay::Never),
            ..Patch::NONE
        },
    },
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

const MISTRAL: Patch = Patch {
    call_ids: Some(CallIds::Nine),
    user_after_tool: Some(false),
    prefill: Some(false),
    repeats_roles: Some(false),
    limit_name: Some(LimitName::MaxTokens),
    ..Patch::NONE
};
