//! OpenAI, and everything that speaks its wires.

use super::*;
use crate::config::MediaKind::{Gif, Jpeg, Mp3, Office, Pdf, Png, Text, Wav, Webp};
use crate::model::request::Effort::{High, Low, Max, Medium, Minimal, None as Off, XHigh};
use crate::model::rules::{
    Allowed, CallIds, Efforts, Entry, LimitName, MediaKinds, Patch, Replay, Structured, SystemRole,
};

pub(super) static ENTRIES: &[Entry] = &[
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
];

const MISTRAL: Patch = Patch {
    call_ids: Some(CallIds::Nine),
    user_after_tool: Some(false),
    prefill: Some(false),
    repeats_roles: Some(false),
    limit_name: Some(LimitName::MaxTokens),
    ..Patch::NONE
};
