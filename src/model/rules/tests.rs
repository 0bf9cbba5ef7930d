use super::*;

fn of(wire: ProviderWire, model: &str) -> Rules {
    resolve(wire, "127.0.0.1:9", model, &[])
}

#[test]
fn names_are_matched_in_any_spelling() {
    assert!(matches("claude-*-4-5*", "claude-haiku-4-5-20251001"));
    assert!(matches("a*b*c", "a--b--b-c") && !matches("a*b*c", "a--c"));
    assert!(matches("o1*", "o1") && !matches("gpt-4", "gpt-4o"));
    assert_eq!(
        plain_name("us.anthropic.claude-opus-4-7-v1:0"),
        "claude-opus-4-7-v1-0"
    );
    assert_eq!(plain_name("anthropic/Claude-Opus-4.7"), "claude-opus-4-7");
    assert!(is_host("mistral.ai", "api.mistral.ai:443"));
    assert!(!is_host("mistral.ai", "notmistral.ai"));
    assert!(is_host("*:11434", "10.0.0.7:11434"));
}

#[test]
fn claudes_differ_by_generation() {
    use ProviderWire::Anthropic;
    for (model, sampling, thinking) in [
        ("claude-opus-4-8", Allowed::Never, Thinking::Adaptive),
        (
            "claude-opus-4-7-20260416",
            Allowed::Never,
            Thinking::Adaptive,
        ),
        ("claude-sonnet-4-6", Allowed::Always, Thinking::Adaptive),
        (
            "claude-haiku-4-5-20251001",
            Allowed::Always,
            Thinking::Budget,
        ),
        ("claude-opus-4-5", Allowed::Always, Thinking::Budget),
        (
            "claude-opus-4-1-20250805",
            Allowed::Always,
            Thinking::Budget,
        ),
        (
            "claude-sonnet-4-20250514",
            Allowed::Always,
            Thinking::Budget,
        ),
        (
            "claude-3-7-sonnet-latest",
            Allowed::Always,
            Thinking::Budget,
        ),
        ("claude-3-5-haiku-latest", Allowed::Always, Thinking::None),
        ("claude-opus-5", Allowed::Never, Thinking::AdaptiveByDefault),
        (
            "claude-sonnet-5-20260630",
            Allowed::Never,
            Thinking::AdaptiveByDefault,
        ),
        (
            "claude-sonnet-5-5",
            Allowed::Never,
            Thinking::AdaptiveBetweenTools,
        ),
        ("claude-opus-5-5", Allowed::Never, Thinking::AdaptiveAlways),
        ("claude-opus-9", Allowed::Never, Thinking::AdaptiveAlways),
        ("glm-5", Allowed::Always, Thinking::Budget),
    ] {
        let rules = of(Anthropic, model);
        assert_eq!(
            (rules.sampling, rules.thinking),
            (sampling, thinking),
            "{model}"
        );
    }
    let structured = |model| of(Anthropic, model).structured;
    assert_eq!(structured("claude-sonnet-4-20250514"), Structured::Tool);
    assert_eq!(structured("claude-3-5-sonnet-20241022"), Structured::Tool);
    for model in [
        "claude-sonnet-4-5",
        "claude-opus-4-1",
        "claude-opus-4-8",
        "claude-sonnet-5",
    ] {
        assert_eq!(structured(model), Structured::Native, "{model}");
    }
    let effort = |model, asked| of(Anthropic, model).effort(Some(asked));
    assert_eq!(effort("claude-opus-4-6", Effort::XHigh), Some(Effort::High));
    assert_eq!(effort("claude-opus-4-6", Effort::Max), Some(Effort::Max));
    assert_eq!(
        effort("claude-opus-4-7", Effort::XHigh),
        Some(Effort::XHigh)
    );
    assert!(!of(Anthropic, "claude-opus-4-6").prefill && of(Anthropic, "claude-opus-4-5").prefill);
}

#[test]
fn openais_reasoning_models_are_told_apart() {
    use ProviderWire::OpenaiChat;
    let effort = |model, asked| of(OpenaiChat, model).effort(Some(asked));
    assert_eq!(effort("gpt-5", Effort::None), Some(Effort::Minimal));
    assert_eq!(effort("gpt-5", Effort::XHigh), Some(Effort::High));
    assert_eq!(effort("gpt-5.1", Effort::Minimal), Some(Effort::Low));
    assert_eq!(effort("gpt-5.2", Effort::Max), Some(Effort::XHigh));
    assert_eq!(effort("gpt-5-pro", Effort::Low), Some(Effort::High));
    assert_eq!(effort("gpt-4o", Effort::High), None);
    assert_eq!(effort("llama3.3", Effort::Max), Some(Effort::XHigh));
    let sampling = |model, asked| {
        let rules = of(OpenaiChat, model);
        rules.may_send(rules.sampling, asked)
    };
    assert!(!sampling("o3-mini", None) && !sampling("gpt-5-mini", None));
    assert!(!sampling("gpt-5.5", None) && sampling("gpt-5.5", Some(Effort::None)));
    assert!(sampling("gpt-5.2", None) && !sampling("gpt-5.2", Some(Effort::Low)));
    assert!(sampling("gpt-5-chat-latest", None) && sampling("gpt-4.1", None));
    assert!(sampling("gpt-oss-120b", Some(Effort::High)));
}

#[test]
fn hosts_tell_their_dialect() {
    let at = |host, model| resolve(ProviderWire::OpenaiChat, host, model, &[]);
    assert_eq!(at("api.mistral.ai", "x").limit_name, LimitName::MaxTokens);
    assert_eq!(at("127.0.0.1:11434", "x").limit_name, LimitName::MaxTokens);
    assert_eq!(
        at("api.openai.com", "x").limit_name,
        LimitName::MaxCompletionTokens
    );
    assert_eq!(
        at("vllm:8000", "mistralai/Mistral-Small-3.2").call_ids,
        CallIds::Nine
    );
    assert_eq!(at("api.openai.com", "gpt-5.5").replay, Replay::Never);
    assert!(!at("api.openai.com", "gpt-5.5").tools_with_reasoning);
    assert!(at("openrouter.ai", "openai/gpt-5.5").tools_with_reasoning);
    assert_eq!(
        at("api.deepseek.com", "deepseek-v4-pro").replay,
        Replay::Required
    );
}

#[test]
fn the_operator_has_the_last_word() {
    let own: Vec<ModelRule> = serde_json::from_value(serde_json::json!([
        { "set": { "limit_name": "max_tokens" } },
        { "models": ["qwen*"], "set": { "sampling": "never", "efforts": ["low", "high"] } },
    ]))
    .expect("valid rules");
    let rules = |model| resolve(ProviderWire::OpenaiChat, "h", model, &own);
    assert_eq!(rules("x").limit_name, LimitName::MaxTokens);
    assert_eq!(rules("x").sampling, Allowed::Always);
    assert_eq!(rules("Qwen/Qwen3").sampling, Allowed::Never);
    assert_eq!(
        rules("qwen3").effort(Some(Effort::XHigh)),
        Some(Effort::High)
    );
    let wrong = serde_json::json!({ "set": { "limitname": "max_tokens" } });
    assert!(serde_json::from_value::<ModelRule>(wrong).is_err());
}
